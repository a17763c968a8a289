"""Fewer mini-batches: the cheapest way to train on less."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from qtrain.filters.base import Choice, PlainFilter, everything, nothing


class FewerMiniBatches(PlainFilter):
    """SMB of Wu et al. 2020: whole mini-batches are skipped, evenly, so that after every t of them floor(t keep) have
    been trained on."""

    kind: ClassVar[str] = "smb"

    def __init__(self, keep: float = 0.5) -> None:
        self.keep = keep

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        if math.floor((step + 1) * self.keep) > math.floor(step * self.keep):
            return everything(images)
        return Choice(nothing(images), nothing(images))


FILTER = FewerMiniBatches
