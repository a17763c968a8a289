"""A cluster of general-purpose cores that share a scratchpad, as PULP's: each kernel split over the cores.

Cycles per unit of work are the single core's (hwmodel.cores); on top a parallel efficiency, and single-cycle dot
products of 4- and 2-bit operands where the datapath says so (Garofalo et al., XpulpNN, TCAD 2021).
"""

from __future__ import annotations

import dataclasses
from functools import cache

from hwmodel import cores
from hwmodel.containers import container_bits
from hwmodel.cost import KernelCost
from hwmodel.dataflow import Array, backing_bytes
from hwmodel.devices import Device
from hwmodel.mcu import core_cycles
from hwmodel.nests import nests
from hwmodel.operations import MAC_KINDS, Op
from hwmodel.work import Work


def cluster_cost(op: Op, work: Work, device: Device) -> KernelCost:
    """One kernel on all cores: cycles, energy of the busy cores, of the memories' traffic and of standing by.

    Products stream their operands from the second-level memory while the cores compute: the slower of the two counts.
    """
    dma_bytes = _dma_bytes(op, device) if work.outputs and op.layer.kind in MAC_KINDS else 0.0
    cores_cycles = _cycles(work, op.widths.floating, device) / (
        device.value("cluster.cores") * device.value("cluster.efficiency")
    )
    cycles = max(cores_cycles, dma_bytes / device.value("bandwidth.backing")) + device.value("cluster.barrier_cycles")
    energy = (
        cores_cycles * device.value("cluster.cycle_j")
        + work.sram_bytes * device.value("energy.buffer")
        + dma_bytes * device.value("energy.backing")
        + device.value("static_w") * cycles / device.value("clock_hz")
    )
    return KernelCost(
        op.layer.name,
        op.layer.kind,
        work.kernel,
        work.phase,
        work.macs,
        cycles,
        energy,
        sram_bytes=work.sram_bytes + dma_bytes,
    )


def _dma_bytes(op: Op, device: Device) -> float:
    """Bytes between second-level memory and scratchpad for the pass's operands and results."""
    total = 0.0
    for nest in nests(op):
        sizes = tuple(container_bits(bits) / 8 for bits in (nest.input_bits, nest.filter_bits, nest.output_bits))
        array = Array("none", 1, 1, 1, 1, 1, round(device.value("buffer_bytes")), sizes[0], 4.0)
        total += backing_bytes(nest, array, *sizes)
    return total


@cache
def _override(device: Device) -> dict[str, float]:
    return {kernel: constant.value for kernel, constant in device.section("cluster.cycles").items()}


def _cycles(work: Work, floating: bool, device: Device) -> float:
    """Cycles on one core; the profile's own cycles per unit replace the core family's."""
    own = _override(device)
    if floating and work.outputs and "float_product" in own:
        return work.units * own["float_product"]
    if work.kernel in own:
        return work.units * own[work.kernel]
    core = cores.core(device.texts["core"])
    library = cores.library(core.reference)
    widest = max(container_bits(bits) for bits in work.bits)
    if floating or widest >= 8 or widest < device.get("cluster.min_bits", 8):
        return core_cycles(work, floating, core, library)
    # dot products on packed operands: nothing to unpack, 8 / bits times as many products a cycle
    packed = core_cycles(dataclasses.replace(work, unpacked=0.0, bits=(8, 8)), floating, core, library)
    if not work.outputs:
        return packed
    outputs = core_cycles(dataclasses.replace(work, units=0.0, unpacked=0.0, bits=(8, 8)), floating, core, library)
    return outputs + (packed - outputs) * widest / 8
