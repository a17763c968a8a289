"""Accelerators: a PE array with a dataflow, a buffer, a backing store, and a vector unit for everything else.

Cycles of a pass = max(array, buffer bandwidth, backing bandwidth). Energy = multiply-accumulates by their
bits + bytes moved at each level + static power x time, the form of Eyeriss' own analysis (Chen et al., ISCA
2016, section VI).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from hwmodel import roofline
from hwmodel.arithmetic import Datapath
from hwmodel.cluster import cluster_cost
from hwmodel.cost import KernelCost
from hwmodel.dataflow import Array, Mapped, backing_bytes, output_stationary, weight_stationary
from hwmodel.devices import Device
from hwmodel.errors import HwmodelError, unknown
from hwmodel.ethos import block
from hwmodel.kernels import works
from hwmodel.ne16 import ne16, supports
from hwmodel.nests import Nest, nests
from hwmodel.operations import MAC_KINDS, Op
from hwmodel.row_stationary import row_stationary
from hwmodel.vector_unit import LAYOUT_KERNELS, fused_cost, vector_cost
from hwmodel.work import Work

DATAFLOWS: dict[str, Callable[[Nest, Array], Mapped]] = {
    "weight-stationary": weight_stationary,
    "output-stationary": output_stationary,
    "row-stationary": row_stationary,
    "block": block,
    "ne16": ne16,
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
        chosen = op.trained_channels if op.phase == "gradient" else 0  # known when the program is written
        op = dataclasses.replace(op, kept_channels=chosen or op.layer.out_channels)
    mapped_here = _runs_on_array(op, device)
    fused = device.texts.get("fused", "").split() if mapped_here else []
    rows: list[KernelCost] = []
    for work in works(op):
        if mapped_here and work.macs == op.macs and work.outputs:
            rows.append(_array_cost(op, work, density, zeros, device))
        elif work.kernel in fused:
            rows.append(fused_cost(op, work, device))
        elif not (mapped_here and work.kernel in LAYOUT_KERNELS):
            rows.append(cluster_cost(op, work, device) if "core" in device.texts else vector_cost(op, work, device))
    return rows


def _runs_on_array(op: Op, device: Device) -> bool:
    """Whether the array computes the Op's products; the cores do where it has no mode for them."""
    if op.layer.kind not in MAC_KINDS or op.phase not in ("forward", "error", "gradient"):
        return False
    flow = device.texts["dataflow"]
    if flow == "none":
        return False
    # the engine's published uses are inference alone: backward passes and float run on the cores
    return flow != "ne16" or (op.phase == "forward" and not op.widths.floating and all(map(supports, nests(op))))


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
        output_cycles=device.get("array.output_cycles", 0.0),
        filter_bytes=path.stored(nest.filter_bits) / 8,
        buffer_rate=device.value("bandwidth.buffer") * _array_cycle(device, nest, path),
    )


def _array_cycle(device: Device, nest: Nest, path: Datapath) -> float:
    """Clock cycles in which the array does one cycle of its mapping."""
    return path.slowdown(nest.input_bits, nest.filter_bits) / device.get("array.efficiency", 1.0)


def _mapped(device: Device, nest: Nest, array: Array) -> Mapped:
    rule = DATAFLOWS.get(array.dataflow)
    if rule is None:
        raise HwmodelError(f"device {device.name!r}: " + unknown("dataflow", array.dataflow, DATAFLOWS))
    return rule(nest, array)


@dataclass(slots=True)
class _Totals:
    """Running sums over the nests of one pass."""

    cycles: float = 0.0
    energy_j: float = 0.0
    buffer: float = 0.0
    backing: float = 0.0
    flash: float = 0.0


def _array_cost(op: Op, work: Work, density: float, zeros: str, device: Device) -> KernelCost:
    """Cycles and energy of the products of one pass."""
    present = density if op.phase in ("error", "gradient") else 1.0
    totals = _Totals()
    for nest in nests(op):
        _add_nest(totals, op, nest, present, zeros, device)
    external = "external_bytes" in device.constants
    return KernelCost(
        op.layer.name,
        op.layer.kind,
        work.kernel,
        work.phase,
        op.macs,
        totals.cycles,
        totals.energy_j + device.value("static_w") * totals.cycles / device.value("clock_hz"),
        sram_bytes=totals.buffer + (0.0 if external else totals.backing),
        flash_bytes=totals.flash,
        external_bytes=totals.backing if external else 0.0,
    )


def _add_nest(totals: _Totals, op: Op, nest: Nest, present: float, zeros: str, device: Device) -> None:
    path = _datapath(device)
    array = _array(device, nest, path)
    mapped = _mapped(device, nest, array)
    input_b, filter_b = array.element_bytes, path.stored(nest.filter_bits) / 8
    buffer = mapped.buffer_inputs * input_b + mapped.buffer_filters * filter_b + mapped.buffer_sums * array.sum_bytes
    backing = backing_bytes(nest, array, input_b, filter_b, path.stored(nest.output_bits) / 8)
    in_flash = "flash_bytes" in device.constants and op.phase != "gradient"
    flash = nest.n_filter * filter_b * op.frozen_share if in_flash else 0.0
    backing -= flash
    compute = mapped.cycles * _array_cycle(device, nest, path)
    totals.cycles += device.get("launch_cycles", 0.0) + max(
        compute * (present if zeros == "skipping" else 1.0),
        buffer / device.value("bandwidth.buffer"),
        backing / device.value("bandwidth.backing"),
        flash / device.value("bandwidth.flash") if flash else 0.0,
    )
    register_bytes = input_b + filter_b + 2 * array.sum_bytes  # both operands read, the sum read and written
    product_j = path.mac_j(nest.input_bits, nest.filter_bits, op.widths.floating)
    product_j += register_bytes * device.value("energy.register")
    totals.energy_j += (
        nest.macs * product_j * (present if zeros in ("gating", "skipping") else 1.0)
        + mapped.array_elements * array.sum_bytes * device.get("energy.array", 0.0)
        + buffer * device.value("energy.buffer")
        + backing * device.value("energy.backing")
        + flash * device.get("energy.flash", 0.0)
    )
    totals.buffer += buffer
    totals.backing += backing
    totals.flash += flash
