"""Random instance dropping."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from qtrain.filters.base import Choice, PlainFilter, chance, nothing, positions


class RandomDropping(PlainFilter):
    """Each instance is dropped with probability 1 - keep, before the forward."""

    kind: ClassVar[str] = "random"

    def __init__(self, seed: int, keep: float = 0.5) -> None:
        self.seed, self.keep = seed, keep

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        kept = chance(len(images), self.seed, step, self.kind, images) < self.keep
        return Choice(positions(kept), nothing(images))


FILTER = RandomDropping
