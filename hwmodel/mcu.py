"""Microcontrollers: cycles of an Op's kernels on a core with a kernel library, and the energy of that time."""

from __future__ import annotations

from hwmodel import cores, loops
from hwmodel.containers import container_bits
from hwmodel.cores import Core, Library
from hwmodel.cost import KernelCost
from hwmodel.devices import Device
from hwmodel.energy import joules_per_cycle
from hwmodel.kernels import works
from hwmodel.operations import Op
from hwmodel.work import Work

PLAIN_LIBRARIES = ("plain-c", "tflm")
"""Libraries whose float kernels are their integer loops' plain C, not the tuned ones of the row "float"."""


def kernel_costs(op: Op, density: float, device: Device) -> list[KernelCost]:
    """Every kernel of one Op, with its cycles and the energy of its time; no MCU skips single zeros (`density`)."""
    core, floating = cores.core(device.texts["core"]), op.widths.floating
    library = library_of(device.texts["kernels"], floating)
    of_core, of_library = cores.fitted("core", core.name), cores.fitted("library", library.name)
    board, energy_per_cycle = device.get("cycle_factor", 1.0), joules_per_cycle(device)
    costs = []
    for work in works(op):
        group = cores.group(work.kernel)
        factor = board * of_core.get(group, 1.0) * of_library.get(group, 1.0)
        cycles = core_cycles(work, floating, core, library, factor) + flash_cycles(work, device)
        if cycles or work.macs:
            costs.append(
                KernelCost(
                    op.layer.name,
                    op.layer.kind,
                    work.kernel,
                    work.phase,
                    work.macs,
                    cycles,
                    cycles * energy_per_cycle,
                    work.sram_bytes,
                    work.weight_bytes,
                )
            )
    return costs


def library_of(name: str, floating: bool) -> Library:
    """The library whose shape and fitted factors hold for integers or float32."""
    return cores.library("float" if floating and name not in PLAIN_LIBRARIES else name)


def core_cycles(work: Work, floating: bool, core: Core, library: Library, factor: float = 1.0) -> float:
    """Cycles of one kernel with all operands in SRAM or cache; `factor` is what measurements add."""

    def unit(kernel: str) -> float:
        shape = 1.0 if library.name == core.reference else library.of(kernel)
        return core.unit_cycles(kernel, floating) * shape * factor

    unpacking = _unpacking(work, floating, core)
    if not work.outputs:
        return work.units * unit(work.kernel) + unpacking
    if not work.macs:
        return work.units * unit(work.kernel) + work.outputs * unit(work.kernel + "_output") + unpacking
    bound = core.float_bound if floating else core.bound
    direct = loops.loop(library.loops, work.kernel, core.name)
    if direct and work.trips:
        longer = core.float_product if floating else 0.0
        product = max((direct.product * _width(work, floating, core) + longer) * factor, bound)
        cycles = direct.cycles(work.trips, product / factor) * factor
    else:
        product = max(unit(work.kernel) * _width(work, floating, core), bound)
        cycles = work.units * product + work.outputs * unit(work.kernel + "_output")
    if work.kernel == "linear_gradient":  # small batches: rank-1 updates straight into the gradient
        cycles = min(cycles, work.units * max(unit("outer"), bound))
    return cycles + unpacking


def flash_cycles(work: Work, device: Device) -> float:
    """Wait states of frozen weights: a cache pays the first touch only, if the layer's weights fit it."""
    cached = work.weight_bytes <= device.get("cache_bytes", 0.0)
    return device.get("flash_stall", 0.0) * work.weight_bytes * (1.0 if cached else work.reuse)


def _unpacking(work: Work, floating: bool, core: Core) -> float:
    narrow = min(container_bits(bits) for bits in work.bits)
    return 0.0 if floating or narrow in core.native_bits else work.unpacked * core.unpack


def _width(work: Work, floating: bool, core: Core) -> float:
    if floating:
        return 1.0
    wide, narrow = sorted((max(8, container_bits(bits)) for bits in work.bits), reverse=True)
    return 1.0 if wide == 8 else core.width[f"{wide}x{narrow}" if wide < 32 else "32x32"]
