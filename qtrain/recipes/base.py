"""What a recipe is: how a batch becomes losses, errors and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor

from qtrain.errors import QtrainError
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
    """Losses of the kept instances in nats (a recipe that learns from a buffer: of the instances there), the factor
    the update multiplies into the gradients, how many of the kept went backward (from a buffer: all of them, since
    they went into it), whether anything was learned, and the step's metrics."""

    losses: Tensor
    scale: float
    n_backward: int
    updated: bool = True
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """What a recipe is built with, besides its own settings.

    images [n, C, H, W] standardized and labels int64 [n] are the training set as the device has it (labels possibly
    wrong); labelled: the positions int64 whose label it may use. deviation [C, 1, 1] is a pixel's change of 255 in
    standardized units; low and high [C, 1, 1] the darkest and brightest pixel.
    """

    images: Tensor
    labels: Tensor
    labelled: Tensor
    n_classes: int
    n_steps: int
    batch_size: int
    seed: int
    flip: bool
    reconstruct: bool
    deviation: Tensor
    low: Tensor
    high: Tensor


class Recipe(Protocol):
    """One way to learn. Gradients are left in `.grad`; the trainer makes the update, then calls `updated`.

    Every pass goes through the network's run and run_back, so that it is recorded. Whatever is drawn at random is a
    function of (seed, step), so that a resumed run draws the same.
    """

    kind: ClassVar[str]
    instance_losses: ClassVar[bool]
    """Whether a streamed instance has a loss of its own, which a filter can learn from."""
    needs_labels: ClassVar[bool]
    """Whether it learns from the label of each streamed instance."""

    def judge(self, net: QuantizedNetwork, batch: Batch, rows: Tensor) -> Tensor:
        """Losses of the instances `rows` (positions in the batch) by a forward pass charged to `uncertain`."""
        ...

    def learn(self, net: QuantizedNetwork, batch: Batch, rows: Tensor, select: Select) -> Outcome:
        """Forward and backward of the instances `rows`."""
        ...

    def updated(self, net: QuantizedNetwork) -> None:
        """Called after each update."""
        ...

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        """(accuracy 0..1 or None, mean loss) on a set of instances; recorded nowhere."""
        ...

    def details(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """What a finished run reports besides, plain data."""
        ...

    def extra_ram_bytes(self, net: QuantizedNetwork) -> dict[str, int]:
        """Memory the recipe holds throughout a run on the device, by name."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def tensors(self) -> dict[str, Tensor]:
        """Tensors a checkpoint must hold, by name."""
        ...

    def load_tensors(self, tensors: dict[str, Tensor]) -> None: ...


class PlainRecipe:
    """What a recipe does where it has nothing of its own to do."""

    instance_losses: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    @staticmethod
    def n_outputs(settings: Any, n_classes: int) -> int:
        """Outputs the network must have; `settings` is the recipe's section of the experiment."""
        return n_classes

    def judge(self, net: QuantizedNetwork, batch: Batch, rows: Tensor) -> Tensor:
        """For recipes without losses of single instances; those that have them say how they are found."""
        raise QtrainError("this recipe has no losses of single instances for a filter to learn from; use --filter none")

    def updated(self, net: QuantizedNetwork) -> None:
        pass

    def details(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
        return {}

    def extra_ram_bytes(self, net: QuantizedNetwork) -> dict[str, int]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        pass
