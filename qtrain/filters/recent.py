"""Choosing by rank: a share of the instances by their scores, and T_l as a quantile of the losses.

Ours, not the paper's. With the paper's fixed boundary the share kept follows from the filter's calibration: a filter
that cannot tell instances apart gives all of them P(high) = share of high labels, and so keeps everything while that
is above R_set, nothing while it is below, and T_l swings it from one to the other. Ranked among each other, instances
are kept in the wanted share whatever the outputs are, and a filter that knows nothing is random dropping.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor

from qtrain.filters.threshold import LEAST, Counts, LossThreshold

N_SCORES = 32
"""Streamed instances among which a score is ranked, at least a mini-batch. No more: an update moves all scores, and
ranked among older ones whole mini-batches are kept or dropped."""
N_LOSSES = 512
"""Streamed instances whose losses T_l is taken from: with a third of them known, a share of 0.3 is known within 0.04
(sqrt(.3 .7 / 170))."""


class Recent:
    """Values of the last mini-batches, each with a weight, until they are those of `least` streamed instances."""

    def __init__(self, least: int) -> None:
        self.least = least
        self.parts: deque[tuple[int, Tensor, Tensor]] = deque()  # instances streamed, values, weights

    def add(self, n_streamed: int, values: Tensor, weights: Tensor | None = None) -> None:
        """Append a mini-batch: values [k], weights [k] (None: 1 each); what is older than needed goes."""
        values = values.double()
        self.parts.append((n_streamed, values, torch.ones_like(values) if weights is None else weights.double()))
        while sum(n for n, *_ in self.parts) - self.parts[0][0] >= self.least:
            self.parts.popleft()

    def __len__(self) -> int:
        """How many values there are."""
        return sum(len(values) for _, values, _ in self.parts)

    def sorted(self) -> tuple[Tensor, Tensor]:
        """(values, weights), values descending."""
        if not self.parts:
            return _doubles([]), _doubles([])
        values, order = torch.cat([v for _, v, _ in self.parts]).sort(descending=True, stable=True)
        return values, torch.cat([w for *_, w in self.parts])[order]

    def state(self) -> list[Any]:
        return [[n, values.tolist(), weights.tolist()] for n, values, weights in self.parts]

    def load_state(self, state: list[Any]) -> None:
        self.parts = deque((n, _doubles(v), _doubles(w)) for n, v, w in state)


def _doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Chances:
    """How probably an instance is kept, from its score (the log odds of "high") and the recent ones.

    With a `share`: (1 - lean) share + lean u^beta, u being the share of recent scores below its own, beta =
    1 / share - 1, so that the mean over uniform u is `share`. The second term prefers high scores and may still draw
    any (its form is Jiang et al.'s, arXiv 1910.00762, there of the losses themselves); `lean` is how sure of the labels
    the main network is by now: trained on the hardest alone, one that errs everywhere learns worse than from random
    instances. Without a share: the paper's rule, 1 where "high" has at least half the probability, else 0.
    """

    def __init__(self, share: float | None) -> None:
        self.share = share
        self.recent = Recent(N_SCORES)

    def of(self, scores: Tensor, draws: Tensor, lean: float) -> Tensor:
        """Chance of each of `scores` [m]; ties are ranked by `draws` [m] from [0, 1)."""
        if self.share is None:
            return (scores >= 0).double()
        self.recent.add(len(scores), scores)
        known, own = self.recent.sorted()[0].flip(0), scores.double().contiguous()
        below, up_to = (torch.searchsorted(known, own, right=right) for right in (False, True))
        rank = (below + draws * (up_to - below)) / len(known)
        return (1 - lean) * self.share + lean * rank ** (1 / self.share - 1)


def drawn(chances: Tensor, start: Tensor) -> Tensor:
    """bool [m]: a systematic sample, each taken with its chance, in all their sum rounded up or down by the one random
    number `start` [1] from [0, 1): a mini-batch's mean over two instances one time and thirty the next is noise."""
    total = (chances.cumsum(0) + start).floor()
    return total.diff(prepend=start.floor()) > 0


class LossQuantile(LossThreshold):
    """T_l at the loss that a share `rate` of the recent instances reaches; not `adaptive`, it stays where LossThreshold
    starts, and only the confidence follows the losses. Of dropped instances only some have a known loss: each stands
    for as many as it was drawn from (Horvitz and Thompson 1952)."""

    def __init__(self, rate: float, window: int, threshold: float = 0.0, adaptive: bool = True) -> None:
        super().__init__(rate, 1.0, 1.0, window, 0.0 if adaptive else threshold, adaptive, "quantile")
        self.recent = Recent(N_LOSSES)

    @property
    def confidence(self) -> float:
        """Mean over the recent instances of exp(-loss), which is the probability given to the right class."""
        losses, weights = self.recent.sorted()
        return float((losses.neg().exp() * weights).sum() / weights.sum()) if len(losses) else 0.0

    @property
    def n_sorted(self) -> int:
        return len(self.recent) if self.adaptive else 0

    def high(self, losses: Tensor, weights: Tensor, n_streamed: int) -> Tensor:
        self.recent.add(n_streamed, losses, weights)
        if not self.adaptive:
            return super().high(losses, weights, n_streamed)
        known, mass = self.recent.sorted()
        if len(known):
            i = int((mass.cumsum(0) < self.rate * mass.sum()).sum())
            self.value = max(float(known[min(i, len(known) - 1)]), LEAST)
        return losses >= self.value

    def update(self, counts: Counts) -> None:
        """Take one mini-batch into the window; `high` has moved the threshold."""
        self.history.append(counts)

    def metrics(self) -> dict[str, float]:
        return super().metrics() | {"confidence": self.confidence}

    def state(self) -> dict[str, Any]:
        return super().state() | {"recent": self.recent.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.recent.load_state(state["recent"])
