"""Notices a network that has stopped telling classes apart."""

from __future__ import annotations

from dataclasses import dataclass

ABOVE_CHANCE = 0.01
"""An accuracy this near to that of always naming the most frequent class has learned nothing."""
LOST = 0.20
"""Accuracy below the best of the run by which training undid itself: ten times the noise of a test set of 355."""


@dataclass
class AccuracyWatch:
    """Follows a run's accuracies, 0 to 1; `chance` is the share of the test set's most frequent class."""

    model: str
    chance: float
    best: float | None = None

    def see(self, accuracy: float | None) -> None:
        """Take one evaluation into account; None (a reconstruction) says nothing."""
        if accuracy is not None:
            self.best = accuracy if self.best is None else max(self.best, accuracy)

    def warnings(self, final: float | None, whole_epoch: bool) -> list[str]:
        """One line for an accuracy that fell from the best seen, or that is chance's after a whole epoch."""
        if final is None:
            return []
        if self.best is not None and final < self.best - LOST:
            fell = f"fell from {100 * self.best:.1f} to {100 * final:.1f} %"
            return [f"{self.model}: accuracy {fell}: lower --lr, or raise the bits"]
        if whole_epoch and final <= self.chance + ABOVE_CHANCE:
            chance = f"{100 * final:.1f} % is no better than chance ({100 * self.chance:.1f} %)"
            return [f"{self.model}: accuracy {chance}: try another --lr, more --epochs or more bits"]
        return []
