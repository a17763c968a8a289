"""What a filter is: the choice of the streamed instances that are worth training on."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from qtrain.formats.noise import NOISE_BITS, Stream, noise

if TYPE_CHECKING:
    from qtrain.layers.network import QuantizedNetwork


@dataclass(frozen=True, slots=True)
class Choice:
    """Positions in the mini-batch, int64, ascending, disjoint."""

    kept: Tensor  # go through forward, backward and update
    uncertain: Tensor  # forward only, for their loss
    context: Any = None  # what learn() needs


class Filter(Protocol):
    """Chooses instances before the main forward (`choose`), before the main backward (`backward_rows`), or both.

    The order of a step: choose; forward of the uncertain, for their losses; forward of the kept; backward_rows;
    backward and update; learn. With nothing kept there is no main step, but learn is called. Whatever is drawn at
    random is a function of (seed, step), so that a resumed run draws the same.
    """

    network: QuantizedNetwork | None
    """The filter's own network, recorded under payer "filter"; the filter steps it with its `optimizer`. A checkpoint
    saves both as it saves the main network's; `state` is what the filter holds besides."""
    optimizer: Any

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        """images: [m, C, H, W], labels: int64 [m] or None; step counts mini-batches from 0."""
        ...

    def backward_rows(self, losses: Tensor) -> Tensor | None:
        """Which of the kept go backward, from their losses [k]: ascending positions within the kept; None: all."""
        ...

    def learn(self, choice: Choice, kept_losses: Tensor, uncertain_losses: Tensor, step: int) -> dict[str, float]:
        """Learn from the main network's losses of the kept [k] and the uncertain [u]; returns the step's metrics."""
        ...

    def extra_ram_bytes(self) -> dict[str, int]:
        """Memory held throughout a run on the device besides the network's, by name."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain data a checkpoint must hold, JSON-able."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class PlainFilter:
    """What a filter does where it has nothing of its own to do: it keeps everything and remembers nothing."""

    network: QuantizedNetwork | None = None
    optimizer: Any = None

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        return everything(images)

    def backward_rows(self, losses: Tensor) -> Tensor | None:
        return None

    def learn(self, choice: Choice, kept_losses: Tensor, uncertain_losses: Tensor, step: int) -> dict[str, float]:
        return {}

    def extra_ram_bytes(self) -> dict[str, int]:
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def everything(images: Tensor) -> Choice:
    """All of the mini-batch is kept."""
    return Choice(torch.arange(len(images), device=images.device), nothing(images))


def nothing(images: Tensor) -> Tensor:
    """No position."""
    return torch.empty(0, dtype=torch.int64, device=images.device)


def positions(mask: Tensor) -> Tensor:
    """Ascending positions of the true elements of a bool mask [m]."""
    return mask.nonzero().flatten()


def chance(n: int, seed: int, step: int, name: str, like: Tensor) -> Tensor:
    """n numbers in [0, 1) from the hash of (seed, step, name, position): float64 on the device of `like`."""
    stream = Stream(seed, step, zlib.crc32(name.encode()))
    return noise(torch.Size((n,)), stream, like.new_empty(0, dtype=torch.float64)) / 2.0**NOISE_BITS
