"""What the engine is told of a network: shapes, padding, constants and numbers, without any framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hwmodel.operations import Layer, Widths


@dataclass(frozen=True)
class Node:
    """One layer. `pad` is (top, bottom, left, right) zeros around its input; `moves` a shortcut's slices and pads.

    epsilon and share (of the batch in the running statistics) are a normalization's; `trains`: all, bias or none.
    """

    layer: Layer
    widths: Widths
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    epsilon: float = 0.0
    share: float = 0.0
    moves: tuple[tuple[str, Any], ...] = ()
    trains: str = "none"

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Kernel height and width, stride down and across."""
        la = self.layer
        return la.kernel_height, la.kernel_width, la.stride_height, la.stride_width


@dataclass(frozen=True)
class Numbers:
    """What holds for the whole run: noise seed, rounding of errors, gradients and updates, exponent rule."""

    seed: int = 0
    rounding: str = "stochastic"
    scale: str = "delayed"


@dataclass(frozen=True)
class Sgd:
    """The update's constants as given; the engine rounds each to a 16-bit mantissa."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
