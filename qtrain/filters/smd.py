"""Stochastic mini-batch dropping."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from qtrain.filters.base import Choice, PlainFilter, chance, everything, nothing


class StochasticMiniBatchDropping(PlainFilter):
    """SMD of Wang et al. 2019, "E2-Train", arXiv 1910.13349: each mini-batch is dropped with probability 1 - keep."""

    kind: ClassVar[str] = "smd"

    def __init__(self, seed: int, keep: float = 0.5) -> None:
        self.seed, self.keep = seed, keep

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        if bool(chance(1, self.seed, step, self.kind, images) < self.keep):
            return everything(images)
        return Choice(nothing(images), nothing(images))


FILTER = StochasticMiniBatchDropping
