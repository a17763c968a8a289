"""What is known of a model before torch is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]
"""Channels, height, width of one instance."""

Task = Literal["classify", "reconstruct"]


@dataclass(frozen=True)
class ModelInfo:
    """One model: its native input and classes, and how it is built.

    `build(input_shape, n_classes)` returns a module that maps [n, C, H, W] to logits [n, n_classes] (task
    "classify") or to the flattened input [n, C*H*W] (task "reconstruct", n_classes 0). `filter` names the
    network that filters instances for this one by default; a filter network itself has "".
    """

    name: str
    input_shape: Shape
    n_classes: int
    build: Callable[[Shape, int], nn.Module]
    filter: str
    description: str
    source: str
    task: Task = "classify"
