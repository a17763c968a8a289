"""Selective backprop: the whole forward, then each instance goes back with a probability that grows with its loss."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

import torch
from torch import Tensor

from qtrain.filters.base import Choice, PlainFilter, chance, positions

HISTORY = 1024
"""Losses the percentile is taken among (the window of Jiang et al.'s published code)."""


class SelectiveBackprop(PlainFilter):
    """Jiang et al. 2019, "Accelerating Deep Learning by Focusing on the Biggest Losers", arXiv 1910.00762.

    P(backward) = (share of the last HISTORY losses that are not above it) ^ beta. Percentiles are uniform, so the mean
    share is 1 / (beta + 1): `keep` sets beta = 1/keep - 1. Chosen instances are not gathered over several mini-batches.
    """

    kind: ClassVar[str] = "selective-backprop"

    def __init__(self, seed: int, keep: float = 0.5) -> None:
        self.seed, self.beta = seed, 1 / keep - 1
        self.history: deque[float] = deque(maxlen=HISTORY)
        self.step = 0

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        self.step = step
        return super().choose(images, labels, step)

    def backward_rows(self, losses: Tensor) -> Tensor | None:
        self.history.extend(losses.tolist())
        known = torch.tensor(list(self.history), dtype=torch.float64, device=losses.device).sort().values
        rank = torch.searchsorted(known, losses.double().contiguous(), right=True)
        probability = (rank / max(len(known), 1)) ** self.beta
        return positions(chance(len(losses), self.seed, self.step, self.kind, losses) < probability)

    def state(self) -> dict[str, Any]:
        return {"history": list(self.history)}

    def load_state(self, state: dict[str, Any]) -> None:
        self.history.clear()
        self.history.extend(state["history"])


FILTER = SelectiveBackprop
