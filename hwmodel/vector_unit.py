"""Kernels without a matrix product on an accelerator: a vector unit or host core works through them."""

from __future__ import annotations

from hwmodel.cost import KernelCost
from hwmodel.devices import Device
from hwmodel.errors import HwmodelError, unknown
from hwmodel.operations import Op
from hwmodel.work import Work

LAYOUT_KERNELS = frozenset({"im2col", "rotate", "transpose"})
"""Rearrangements that software libraries copy for and that an array's address generators make in passing."""

OPERATIONS = {
    "requantize": 3,  # add the rounding bit, shift, clip
    "requantize_weight": 3,
    "requantize_gradient": 3,
    "requantize_update": 3,
    "stochastic_rounding": 3,  # xorshift32 (Marsaglia 2003): three shift-and-xor pairs, fused in one unit
    "bias": 1,
    "bias_gradient": 1,
    "activation": 1,
    "mask": 1,
    "copy": 1,
    "scatter": 1,
    "add": 1,
    "subtract": 1,
    "pool": 1,
    "statistics": 1,
    "normalize": 2,  # multiply by the scale, add the shift
    "reciprocal_root": 16,  # table look-up and two Newton steps
    "exponential": 16,  # table look-up and a cubic
    "update": 2,  # scale the gradient, subtract
    "momentum": 2,
    "select": 2,  # magnitude, add
    "thin": 6,  # magnitude, add, compare with the threshold; scale, compare with the draw, choose
    "sort": 2,  # compare, exchange
}
"""Elementary operations per unit of each kernel, counted from its formula."""


def operations(work: Work) -> float:
    """Elementary operations of one kernel. Raises HwmodelError for a kernel without a count."""
    if work.kernel not in OPERATIONS:
        raise HwmodelError(unknown("kernel", work.kernel, OPERATIONS))
    return work.units * OPERATIONS[work.kernel]


def fused_cost(op: Op, work: Work, device: Device) -> KernelCost:
    """A kernel in the array's output stage: its operations' energy; its cycles are the dataflow's."""
    energy = operations(work) * device.value("vector.op_j")
    return KernelCost(op.layer.name, op.layer.kind, work.kernel, work.phase, work.macs, 0.0, energy)


def vector_cost(op: Op, work: Work, device: Device) -> KernelCost:
    """Cost of one kernel: operations at the unit's rate, its traffic through the buffer.

    Raises HwmodelError for a kernel without a count.
    """
    n_operations = operations(work)
    own_rate = device.get(f"vector.cycles.{work.kernel}", -1.0)
    cycles = max(
        work.units * own_rate if own_rate >= 0 else n_operations / device.value("vector.ops_per_cycle"),
        work.sram_bytes / device.value("bandwidth.buffer"),
    )
    energy = (
        n_operations * device.value("vector.op_j")
        + work.sram_bytes * device.value("energy.buffer")
        + device.value("static_w") * cycles / device.value("clock_hz")
    )
    return KernelCost(
        op.layer.name, op.layer.kind, work.kernel, work.phase, work.macs, cycles, energy,
        sram_bytes=work.sram_bytes,
    )  # fmt: skip
