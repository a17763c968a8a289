"""What the engine is told of a network: shapes, padding, constants and numbers, without any framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwmodel.operations import Layer, Widths


@dataclass(frozen=True)
class Node:
    """One layer. `pad` is (top, bottom, left, right) zeros around its input; `moves` a shortcut's slices and pads.

    accumulator: wrap or saturate; per_channel: each output channel's weights have their own exponent;
    roundings (of weight, activation, error, gradient, update) and scales, the exponent rules (of the first four);
    epsilon and share (of the batch in the running statistics) are a normalization's; `trains`: all, bias or none.
    """

    layer: Layer
    widths: Widths
    roundings: Mapping[str, str]
    scales: Mapping[str, str]
    accumulator: str = "wrap"
    per_channel: bool = False
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
class Sgd:
    """The update's constants as given; the engine rounds each to a 16-bit mantissa. `shift`: codes of the gradient are
    shifted by the rate alone."""

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    shift: bool = False
