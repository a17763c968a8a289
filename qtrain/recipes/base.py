"""What a recipe is: how a batch becomes losses, errors and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from qtrain.layers import QuantizedNetwork

Select = Callable[[Tensor], Tensor | None]
"""From the losses of the kept instances to the positions among them that go backward; None: all."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One mini-batch of the stream: images [m, C, H, W] as the network reads them, labels int64 [m], the instances'
    positions in the training set int64 [m], and the step it is streamed at."""

    images: Tensor
    labels: Tensor
    indices: Tensor
    step: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Losses of the kept instances [k] in nats, and the factor the update multiplies into the gradients."""

    losses: Tensor
    scale: float


class Recipe(Protocol):
    """One way to learn. Gradients are left in `.grad`; the trainer makes the update."""

    name: ClassVar[str]

    def judge(self, net: QuantizedNetwork, batch: Batch, rows: Tensor) -> Tensor:
        """Losses of the instances `rows` (positions in the batch) by a forward pass charged to `uncertain`."""
        ...

    def learn(self, net: QuantizedNetwork, batch: Batch, rows: Tensor, select: Select) -> Outcome:
        """Forward and backward of the instances `rows`."""
        ...

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        """(accuracy 0..1 or None, mean loss) on a set of instances."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...
