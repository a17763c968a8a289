"""The shapes, which of them entered a fit, and what the model says of them from its instruction tables alone."""

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
    stride: int = 1
    depthwise: bool = False
    passes: tuple[str, ...] = PASSES

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

    def op(self, phase: str) -> Op:
        """One pass of the layer."""
        update = phase == "update"
        return Op(self.layer, Widths(), phase, "main", 0 if update else 1, self.out, parameter_terms=1 if update else 0)

    @property
    def units(self) -> str:
        """The shape in words."""
        kind = "depthwise " if self.depthwise else ""
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return f"{kind}{self.kernel}x{self.kernel}, {self.channels} -> {self.out}, {self.side}x{self.side}{stride}"


TRAINED = ("forward", "gradient", "update")
FITTED = (
    Case("a", 8, 12, 16, 3),
    Case("b", 16, 8, 8, 3),
    Case("c", 4, 10, 12, 3),
    Case("d", 12, 7, 6, 5),
    Case("e", 6, 10, 6, 5),
    Case("f", 16, 9, 16, 1),
    Case("g", 16, 8, 16, 3, 1, True),
    Case("h", 8, 10, 8, 5, 1, True),
    Case("i", 12, 12, 12, 3, 1, True),
    Case("j", 4, 9, 4, 5, 1, True),
    Case("k", 24, 6, 24, 3, 1, True),
    Case("l", 6, 9, 6, 7, 1, True),
)
"""Shapes of hwmodel/calibration/loops.toml: stride 1 throughout, no layer of three channels."""
HELD_OUT = (
    Case("calibration", 16, 16, 32, 3),  # the shape of calibration/passes.toml; the im2col loops were fitted to it
    Case("wide", 32, 8, 24, 3),
    Case("strided", 16, 16, 24, 3, 2),
    Case("strided 5x5", 8, 11, 16, 5, 2),
    Case("first", 3, 16, 16, 3, 1, False, TRAINED),  # no error goes below the first layer
    Case("5x5", 8, 10, 16, 5),
    Case("pointwise", 32, 8, 48, 1),
    Case("strided 1x1", 16, 12, 32, 1, 2),
    Case("depthwise", 32, 10, 32, 3, 1, True),
    Case("strided depthwise", 24, 15, 24, 3, 2, True),
)
"""Shapes that the table reports."""


def library(kernels: str) -> cores.Library:
    """The model's library of one C file."""
    return cores.library("plain-c") if kernels == "plain" else SIMD


def predicted_cycles(case: Case, phase: str, core_name: str, kernels: str) -> float:
    """Cycles of one pass by the core's table; nothing fitted to silicon enters."""
    core = cores.core(core_name)
    kept = [work for work in works(case.op(phase)) if work.kernel not in OUTSIDE[phase]]
    return sum(mcu.core_cycles(work, False, core, library(kernels)) for work in kept)


def print_head() -> None:
    """The head of a table."""
    print("| core, kernels | shape | pass | cycles | per MAC | model | error |\n|---|---|---|---:|---:|---:|---:|")


def print_row(name: str, case: Case, phase: str, measured: float, model: float) -> None:
    """One row: measured and predicted cycles per MAC (per weight of an update), and the error."""
    units = case.layer.n_weights if phase == "update" else case.layer.macs
    print(
        f"| {name} | {case.name}: {case.units} | {phase} | {measured:,.0f} | {measured / units:.3f} "
        f"| {model / units:.3f} | {model / measured - 1:+.1%} |",
        flush=True,
    )


def print_errors(errors: list[float]) -> None:
    """The mean and the largest error."""
    print(f"\n{len(errors)} passes: mean error {sum(map(abs, errors)) / len(errors):.1%}, "
          f"largest {max(map(abs, errors)):.1%}")  # fmt: skip
