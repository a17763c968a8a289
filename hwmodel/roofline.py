"""Roofline of a GPU or CPU module: a kernel takes the longer of its arithmetic and its traffic, plus a launch.

Energy is the stated module power x time: the profile says on what that power rests (Williams et al., Roofline, CACM
2009, for the time).
"""

from __future__ import annotations

from hwmodel.containers import container_bits
from hwmodel.cost import KernelCost
from hwmodel.devices import Device
from hwmodel.kernels import works
from hwmodel.nests import nests
from hwmodel.operations import MAC_KINDS, Op
from hwmodel.vector_unit import LAYOUT_KERNELS, operations
from hwmodel.work import Work

EPILOGUE = frozenset({"bias", "activation", "mask", "requantize", "requantize_weight", "requantize_gradient",
                      "requantize_update", "stochastic_rounding", "bias_gradient"})  # fmt: skip
"""Elementwise work that a library fuses into the kernel before it: no launch of its own."""


def kernel_costs(op: Op, density: float, device: Device) -> list[KernelCost]:
    """Every kernel of one Op; `density` is ignored: dense libraries multiply zeros."""
    return [
        _cost(op, work, device)
        for work in works(op)
        if work.kernel not in LAYOUT_KERNELS  # implicit GEMM addresses patches in place
    ]


def _cost(op: Op, work: Work, device: Device) -> KernelCost:
    product = op.layer.kind in MAC_KINDS and work.macs == op.macs and work.outputs > 0
    if product:
        arithmetic = work.macs * _rate_loss(op, device) / device.value("macs_per_cycle")
        n_bytes = sum(
            nest.n_input * container_bits(nest.input_bits) / 8
            + nest.n_filter * container_bits(nest.filter_bits) / 8
            + nest.n_output * container_bits(nest.output_bits) / 8
            for nest in nests(op)
        )
    else:
        arithmetic = operations(work) / device.value("macs_per_cycle")
        n_bytes = 0.0 if work.kernel in EPILOGUE else work.sram_bytes  # an epilogue's operands are in registers
    launch = 0.0 if work.kernel in EPILOGUE else device.value("launch_s") * device.value("clock_hz")
    cycles = max(arithmetic, n_bytes / device.value("bandwidth.backing")) + launch
    return KernelCost(
        op.layer.name, op.layer.kind, work.kernel, work.phase, work.macs, cycles,
        cycles / device.value("clock_hz") * device.value("power_w"),
        external_bytes=n_bytes,
    )  # fmt: skip


def _rate_loss(op: Op, device: Device) -> float:
    """Share of the peak rate that is lost: groups too small to fill a warp's tile, and the library's own efficiency."""
    filled = min(1.0, op.layer.out_channels / op.layer.groups / device.value("tile_channels"))
    return 1 / (filled * device.value("efficiency"))
