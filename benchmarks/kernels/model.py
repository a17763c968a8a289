"""Shapes that enter no fit, and what the model says of them from its instruction tables alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hwmodel import cores, mcu
from hwmodel.kernels import works
from hwmodel.operations import Layer, Op, Widths
from hwmodel.training_passes import SIMD

PASSES = ("forward", "error", "gradient", "update")
FUNCTIONS_OUTSIDE = ("main", "reset", "fill", "write0")
OUTSIDE = {"forward": {"requantize_weight"}, "error": {"stochastic_rounding"},
           "gradient": {"requantize_gradient", "stochastic_rounding"}, "update": set()}  # fmt: skip
"""Kernels of the Op that the C routines leave out: they take codes and leave 32-bit gradients."""


@dataclass(frozen=True)
class Case:
    """A convolution on a square map with "same" padding, batch 1."""

    name: str
    channels: int
    side: int
    out: int
    kernel: int
    stride: int
    depthwise: bool
    passes: tuple[str, ...]

    @property
    def layer(self) -> Layer:
        """The layer as the model sees it."""
        out_side = -(-self.side // self.stride)
        return Layer("conv", "conv", ("x",), self.channels, self.side, self.side, self.out, out_side, out_side,
                     self.kernel, self.kernel, self.stride, self.stride,
                     self.channels if self.depthwise else 1)  # fmt: skip

    @property
    def initializer(self) -> str:
        """Fields of the C struct conv."""
        layer = self.layer
        return ",".join(
            str(n)
            for n in (self.channels, self.side, self.out, self.kernel, self.stride, (self.kernel - 1) // 2,
                      layer.out_height, layer.groups)
        )  # fmt: skip


CASES = (
    Case("fitted", 16, 16, 32, 3, 1, False, PASSES),  # the shape of the calibration, for comparison
    Case("small", 8, 12, 16, 3, 1, False, PASSES),
    Case("wide", 32, 8, 24, 3, 1, False, PASSES),
    Case("strided", 16, 16, 24, 3, 2, False, ("forward", "gradient")),
    Case("first", 3, 16, 16, 3, 1, False, ("forward", "gradient")),
    Case("5x5", 8, 10, 16, 5, 1, False, ("forward", "error", "gradient")),
    Case("pointwise", 32, 8, 48, 1, 1, False, ("forward", "error", "gradient")),
    Case("depthwise", 32, 10, 32, 3, 1, True, ("forward",)),
)


def predicted_cycles(case: Case, phase: str, core_name: str, kernels: str) -> float:
    """Cycles of one pass by the core's table; nothing fitted to silicon enters."""
    core = cores.core(core_name)
    library = cores.library("plain-c") if kernels == "plain" else SIMD
    op = Op(case.layer, Widths(), phase, "main", 0 if phase == "update" else 1, case.out,
            update_terms=1 if phase == "update" else 0)  # fmt: skip
    kept = [work for work in works(op) if work.kernel not in OUTSIDE[phase]]
    return sum(mcu.core_cycles(work, False, core, library) for work in kept)


def print_row(name: str, case: Case, phase: str, measured: float, model: float, note: str = "") -> None:
    """One line: measured and predicted cycles per MAC (per weight of an update), and the error."""
    units = case.layer.n_weights if phase == "update" else case.layer.macs
    print(
        f"{name:18}{case.name:10}{phase:9}{measured:12.0f} cycles{measured / units:8.3f}"
        f"{model / units:8.3f} {model / measured - 1:+7.1%}  {note}"
    )
