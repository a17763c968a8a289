"""What a run has counted so far, its rows of metrics, and what a display shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from qtrain.training.step import StepRecord


@dataclass(frozen=True, slots=True)
class Progress:
    """What a display shows: steps done and planned, last accuracy, share kept, threshold, loss, energy so far."""

    step: int
    n_steps: int
    accuracy: float | None
    kept_share: float
    threshold: float | None
    loss: float | None
    energy_j: float


@dataclass
class Totals:
    """Instances and updates so far, and sums since the last row of metrics."""

    seen: int = 0
    kept: int = 0
    uncertain: int = 0
    backward: int = 0
    updates: int = 0
    recent: list[StepRecord] = field(default_factory=list)

    def add(self, record: StepRecord) -> None:
        """Count one step."""
        self.seen += record.seen
        self.kept += record.kept
        self.uncertain += record.uncertain
        self.backward += record.backward
        self.updates += record.updated
        self.recent.append(record)

    def row(self, step: int, accuracy: float | None, energy_j: float) -> dict[str, Any]:
        """A row of metrics at `step`: means over the recent steps, which are then forgotten."""
        recent, self.recent = self.recent, []
        losses = [r.loss for r in recent if r.loss is not None]
        n_seen = max(sum(r.seen for r in recent), 1)
        names = sorted({name for r in recent for name in r.metrics})
        found = {name: [r.metrics[name] for r in recent if name in r.metrics] for name in names}
        return {
            "step": step,
            "loss": sum(losses) / len(losses) if losses else None,
            "accuracy": accuracy,
            "kept_share": sum(r.kept for r in recent) / n_seen,
            "uncertain_share": sum(r.uncertain for r in recent) / n_seen,
            "energy_j": energy_j,
            **{name: sum(values) / len(values) for name, values in found.items()},
        }

    def instances(self) -> dict[str, int]:
        """Instances seen, kept, uncertain, and of the kept those that went backward."""
        return {"seen": self.seen, "kept": self.kept, "uncertain": self.uncertain, "backward": self.backward}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {**self.instances(), "updates": self.updates, "recent": [asdict(record) for record in self.recent]}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` gave."""
        self.seen, self.kept, self.uncertain = state["seen"], state["kept"], state["uncertain"]
        self.backward, self.updates = state["backward"], state["updates"]
        self.recent = [StepRecord(**record) for record in state["recent"]]
