"""Notices a filter that has stopped choosing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

DEAD_STEPS = 50
DEAD_INSTANCES = 1000
"""Both must pass with one and the same decision: at a kept share of 0.1, an honest filter drops 50 single instances in
a row once in 200 times (0.9^50), 1000 never (0.9^1000 = 2e-46)."""


class DeadWatch:
    """Counts how long everything, or nothing, has been kept; calls `warn` once a run for each of the two."""

    def __init__(self, warn: Callable[[str], None] | None = None) -> None:
        self.warn = warn
        self.same = ""  # "all" or "none" while every instance met the same decision
        self.n_steps = 0
        self.n_instances = 0
        self.warned: list[str] = []

    def update(self, streamed: int, kept: int) -> bool:
        """Take one mini-batch into account; returns whether the filter is dead (or keeps everything) now."""
        if not streamed:
            return self.is_dead
        now = "none" if not kept else "all" if kept == streamed else ""
        if now != self.same:
            self.same, self.n_steps, self.n_instances = now, 0, 0
        self.n_steps += 1
        self.n_instances += streamed
        if self.is_dead and self.same not in self.warned:
            self.warned.append(self.same)
            if self.warn is not None:
                self.warn(self._message())
        return self.is_dead

    @property
    def is_dead(self) -> bool:
        return bool(self.same) and self.n_steps >= DEAD_STEPS and self.n_instances >= DEAD_INSTANCES

    def _message(self) -> str:
        if self.same == "none":
            return (
                f"the filter has kept nothing of the last {self.n_instances} instances; lower filter.lr or raise "
                "filter.audit"
            )
        return (
            f"the filter has kept all of the last {self.n_instances} instances and saves nothing; raise "
            "filter.threshold or lower filter.rate"
        )

    def state(self) -> dict[str, Any]:
        return {"same": self.same, "n_steps": self.n_steps, "n_instances": self.n_instances, "warned": self.warned}

    def load_state(self, state: dict[str, Any]) -> None:
        self.same, self.n_steps, self.n_instances = state["same"], state["n_steps"], state["n_instances"]
        self.warned = list(state["warned"])
