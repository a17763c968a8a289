"""The loss threshold that tells high from low, and the window of counts it is steered by."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qtrain.errors import QtrainError

STEERS = ("quantile", "true-high", "kept")
START_SHARE = 0.1
"""Everything is high at first and T_l rises to meet the falling losses, when they tell instances apart: an untrained
network's losses do not, and a filter learning from them drops everything or nothing."""
LEAST = 2.0**-16
"""The threshold does not sink below the step in which fixed-point losses are given."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Instances of one mini-batch."""

    streamed: int
    kept: int
    true_high: int  # of the kept: loss at or above the threshold
    missed: float | None  # of the dropped: the same, estimated from those labelled; None: cannot be known


class LossThreshold:
    """T_l of Wu et al. 2020, adapted after every mini-batch (eq. 3):

    R_TH = (1 / (m n)) sum I(predicted high) I(high) over all m n instances streamed in the last n mini-batches (2)
    T_l <- alpha_up T_l if R_TH >= R_set else alpha_down T_l, alpha_up > 1 > alpha_down                    (3)
    Until n mini-batches have passed, those there are count. steer "kept" puts the share of kept instances in the place
    of R_TH, so that the rate is the share trained on whatever the filter's precision (ours, not the paper's).
    `threshold` 0: it starts at START_SHARE of the mean of the first losses seen (the paper does not state its start).
    """

    def __init__(
        self, rate: float, alpha_up: float, alpha_down: float, window: int, threshold: float, adaptive: bool, steer: str
    ) -> None:
        if steer not in STEERS:
            raise QtrainError(f"filter.steer is {steer!r}; it must be one of {', '.join(STEERS)}")
        self.rate, self.alpha_up, self.alpha_down = rate, alpha_up, alpha_down
        self.adaptive, self.steer = adaptive, steer
        self.value = threshold
        self.history: deque[Counts] = deque(maxlen=window)

    @property
    def confidence(self) -> float:
        """How sure of the labels the main network is, 0 to 1; not followed by this rule."""
        return 1.0

    @property
    def n_sorted(self) -> int:
        """Values sorted for one mini-batch's threshold."""
        return 0

    def high(self, losses: Tensor, weights: Tensor, n_streamed: int) -> Tensor:
        """bool [n]: loss >= T_l (eq. 1). Sets a threshold that has not started yet. `weights` [n]: how many of the
        n_streamed instances each loss stands for (not asked by this rule)."""
        if not self.value and len(losses):
            self.value = max(START_SHARE * float(losses.double().mean()), LEAST)
        return losses >= self.value

    def update(self, counts: Counts) -> None:
        """Take one mini-batch into the window and adapt."""
        self.history.append(counts)
        if self.adaptive and self.value:
            share = self.share("true_high" if self.steer == "true-high" else "kept")
            self.value = max(self.value * (self.alpha_up if share >= self.rate else self.alpha_down), LEAST)

    def share(self, of: str) -> float:
        """Instances counted under `of`, as a share of all streamed in the window."""
        return self._total(of) / max(self._total("streamed"), 1)

    def metrics(self) -> dict[str, float]:
        """The threshold, and shares over the window. precision: of the kept, how many are high; recall: of the high
        ones, kept or (estimated) missed, how many are kept; each left out where it divides by zero or is unknown."""
        true_high, kept = self._total("true_high"), self._total("kept")
        found = {"threshold": self.value, "true_high": self.share("true_high")}
        if kept:
            found["precision"] = true_high / kept
        missed = [counts.missed for counts in self.history if counts.missed is not None]
        high = true_high + sum(missed)
        if high and len(missed) == len(self.history):
            found["recall"] = true_high / high
        return found

    def state(self) -> dict[str, Any]:
        rows = [[c.streamed, c.kept, c.true_high, c.missed] for c in self.history]
        return {"threshold": self.value, "history": rows}

    def load_state(self, state: dict[str, Any]) -> None:
        self.value = state["threshold"]
        self.history.clear()
        self.history.extend(Counts(*row) for row in state["history"])

    def _total(self, of: str) -> int:
        return sum(getattr(counts, of) for counts in self.history)
