"""The passes of a step in order of execution, and when each of them happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwmodel.operations import PRUNING, Op
from hwmodel.schedule import Schedule


@dataclass(frozen=True)
class Passes:
    """When one payer's passes happen: (phase, layer) -> moment. The step runs from moment 0 to `end`."""

    moments: Mapping[tuple[str, str], int]
    end: int

    @classmethod
    def of(cls, ops: list[Op], payer: str) -> Passes:
        """The passes that `payer` makes among the `ops` of a step."""
        moments = {(op.phase, op.layer.name): i for i, op in enumerate(ops) if op.payer == payer}
        return cls(moments, len(ops) - 1)

    def at(self, phase: str, name: str) -> int | None:
        """Moment of one pass, None if the step has no such pass."""
        return self.moments.get((phase, name))

    def backward(self, name: str) -> list[int]:
        """Moments of the layer's backward passes, in order."""
        found = (self.moments.get((phase, name)) for phase in (*PRUNING, "gradient", "error"))
        return [moment for moment in found if moment is not None]

    @property
    def forward_start(self) -> int:
        return min((m for (phase, _), m in self.moments.items() if phase == "forward"), default=0)

    @property
    def forward_end(self) -> int:
        return max((m for (phase, _), m in self.moments.items() if phase == "forward"), default=0)


def ordered(
    schedule: Schedule,
    batch: int,
    filter_schedule: Schedule | None = None,
    n_streamed: int = 0,
    n_uncertain: int = 0,
) -> list[Op]:
    """Ops of a step in order of execution: hwmodel.schedule.filtered_step's order, updates fused where
    asked."""
    ops: list[Op] = []
    if filter_schedule is not None:
        ops += filter_schedule.forward(n_streamed, "filter")
    if n_uncertain:
        ops += schedule.forward(n_uncertain, "uncertain")
    ops += schedule.forward(batch)
    ops += _learning(schedule, batch, "main")
    if filter_schedule is not None:
        ops += _learning(filter_schedule, batch + n_uncertain, "filter")
    return ops


def _learning(schedule: Schedule, batch: int, payer: str) -> list[Op]:
    """Backward passes and updates: all updates last; fused, each as soon as its layer's weights are no longer read.

    In fixed point the error pass reads the weight codes, so the master is updated right after its gradient; in float32
    the error pass reads the master, so the update waits for it.
    """
    backward, updates = list(schedule.backward(batch, payer)), list(schedule.update(payer))
    if not schedule.fused_update:
        return backward + updates
    pending = {op.layer.name: op for op in updates}
    last = {op.layer.name: i for i, op in enumerate(backward) if op.widths.floating or op.phase == "gradient"}
    fused: list[Op] = []
    for i, op in enumerate(backward):
        fused.append(op)
        if last.get(op.layer.name) == i and op.layer.name in pending:
            fused.append(pending[op.layer.name])
    return fused
