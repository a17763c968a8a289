"""Accelerators: a PE array with a dataflow, a buffer, a backing store, and a vector unit for everything else.

Cycles of a pass = max(array, buffer bandwidth, backing bandwidth). Energy = multiply-accumulates by their
bits + bytes moved at each level + static power x time, the form of Eyeriss' own analysis (Chen et al., ISCA
2016, section VI).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache

from hwmodel import roofline
from hwmodel.arithmetic import Datapath
from hwmodel.cost import KernelCost
from hwmodel.dataflow import Array, Mapped, backing_bytes, output_stationary, weight_stationary
from hwmodel.devices import Constant, Device
from hwmodel.errors import HwmodelError, unknown
from hwmodel.kernels import works
from hwmodel.nests import Nest, nests
from hwmodel.operations import MAC_KINDS, Op
from hwmodel.row_stationary import row_stationary
from hwmodel.vector_unit import LAYOUT_KERNELS, vector_cost
from hwmodel.work import Work

DATAFLOWS: dict[str, Callable[[Nest, Array], Mapped]] = {
    "weight-stationary": weight_stationary,
    "output-stationary": output_stationary,
    "row-stationary": row_stationary,
}
ZEROS = ("none", "channels", "gating", "skipping")
"""Which zeros save: none; whole channels (energy and cycles); channels, and single elements in energy only
(gating) or in cycles too (skipping)."""


def kernel_costs(op: Op, density: float, device: Device) -> list[KernelCost]:
    """Every kernel of one Op on an accelerator; `density` is the share of non-zero error elements.

    The array addresses its operands where they lie, so im2col, rotation and transposes cost nothing beyond
    the buffer traffic that the dataflow counts. Raises HwmodelError for a dataflow or zero use the model
    does not know.
    """
    if device.kind == "roofline":
        return roofline.kernel_costs(op, density, device)
    zeros = device.texts.get("zeros", "none")
    if zeros not in ZEROS:
        raise HwmodelError(f"device {device.name!r}: " + unknown("zero use", zeros, ZEROS))
    if zeros == "none":
        op = dataclasses.replace(op, kept_channels=op.layer.out_channels)
    rows: list[KernelCost] = []
    for work in works(op):
        if op.layer.kind in MAC_KINDS and work.macs == op.macs and work.outputs:
            rows.append(_array_cost(op, work, density, zeros, device))
        elif work.kernel not in LAYOUT_KERNELS:
            rows.append(vector_cost(op, work, device))
    return rows


def configured(device: Device, clock_mhz: float) -> Device:
    """The device at another clock: backing bandwidth in bytes per second stays. Raises HwmodelError above
    its own."""
    clock = device.value("clock_hz")
    asked = clock_mhz * 1e6
    if not 0 < asked <= clock:
        raise HwmodelError(f"device {device.name!r}: clock {clock_mhz} MHz is not in 0..{clock / 1e6:g} MHz")
    changed = {"clock_hz": _replaced(device.constants["clock_hz"], asked)}
    backing = device.constants["bandwidth.backing"]
    changed["bandwidth.backing"] = _replaced(backing, backing.value * clock / asked)
    return device.with_constants(**changed)


def _replaced(constant: Constant, value: float) -> Constant:
    return dataclasses.replace(constant, value=value, source=constant.source + "; rescaled by the clock asked for")


@cache
def _datapath(device: Device) -> Datapath:
    return Datapath(device)


def _array(device: Device, nest: Nest, path: Datapath) -> Array:
    return Array(
        dataflow=device.texts["dataflow"],
        rows=round(device.value("array.rows")),
        cols=round(device.value("array.cols")),
        input_registers=round(device.get("array.input_registers", 1)),
        filter_registers=round(device.get("array.filter_registers", 1)),
        sum_registers=round(device.get("array.sum_registers", 1)),
        buffer_bytes=round(device.value("buffer_bytes")),
        element_bytes=path.stored(nest.input_bits) / 8,
        sum_bytes=device.get("array.sum_bits", 32) / 8,
    )


def _mapped(device: Device, nest: Nest, array: Array) -> Mapped:
    rule = DATAFLOWS.get(array.dataflow)
    if rule is None:
        raise HwmodelError(f"device {device.name!r}: " + unknown("dataflow", array.dataflow, DATAFLOWS))
    return rule(nest, array)


def _array_cost(op: Op, work: Work, density: float, zeros: str, device: Device) -> KernelCost:
    """Cycles and energy of the products of one pass."""
    path = _datapath(device)
    present = density if op.phase in ("error", "gradient") else 1.0
    worked = present if zeros in ("gating", "skipping") else 1.0
    cycles = buffer = backing = energy = 0.0
    for nest in nests(op):
        array = _array(device, nest, path)
        mapped = _mapped(device, nest, array)
        input_b, filter_b = array.element_bytes, path.stored(nest.filter_bits) / 8
        moved = mapped.buffer_inputs * input_b + mapped.buffer_filters * filter_b + mapped.buffer_sums * array.sum_bytes
        crossed = backing_bytes(nest, array, input_b, filter_b, path.stored(nest.output_bits) / 8)
        compute = mapped.cycles * path.slowdown(nest.input_bits, nest.filter_bits)
        compute *= (present if zeros == "skipping" else 1.0) / device.get("array.efficiency", 1.0)
        cycles += max(
            compute, moved / device.value("bandwidth.buffer"), crossed / device.value("bandwidth.backing")
        ) + device.get("launch_cycles", 0.0)
        registers = nest.macs * (input_b + filter_b + 2 * array.sum_bytes)
        energy += worked * (
            nest.macs * path.mac_j(nest.input_bits, nest.filter_bits, op.widths.floating)
            + registers * device.value("energy.register")
        )
        energy += mapped.array_elements * array.sum_bytes * device.get("energy.array", 0.0)
        energy += moved * device.value("energy.buffer") + crossed * device.value("energy.backing")
        buffer += moved
        backing += crossed
    energy += device.value("static_w") * cycles / device.value("clock_hz")
    external = "external_bytes" in device.constants
    return KernelCost(
        op.layer.name, op.layer.kind, work.kernel, work.phase, op.macs, cycles, energy,
        sram_bytes=buffer + (0.0 if external else backing),
        external_bytes=backing if external else 0.0,
    )  # fmt: skip
