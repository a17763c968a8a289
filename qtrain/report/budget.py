"""Budgets: the best setting within limits, or the nearest miss and the limit that binds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtrain.report.comparison import Row

_READS = {
    "max_energy_j": "energy_j",
    "max_step_energy_j": "step_energy_j",
    "max_update_energy_j": "update_energy_j",
    "max_ram_bytes": "peak_ram_bytes",
    "min_accuracy": "accuracy",
}


@dataclass(frozen=True)
class Budget:
    """Hard limits on a setting: energy of the run, of a step or an update (see Row), peak RAM, mean accuracy (0 to 1);
    None: no limit."""

    max_energy_j: float | None = None
    max_step_energy_j: float | None = None
    max_update_energy_j: float | None = None
    max_ram_bytes: float | None = None
    min_accuracy: float | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all limits."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def limits(self) -> dict[str, float]:
        """The limits that were given."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    def excess(self, row: Row) -> dict[str, float]:
        """By how much a row is above each limit, as a share of the limit; negative within it.

        Not fitting the device counts as a limit, `fits`; an accuracy is missed by a share of the error it may have.
        """
        found: dict[str, float] = {}
        for key, limit in self.limits().items():
            value = getattr(row, _READS[key])
            if key == "min_accuracy":
                found[key] = 1.0 if value is None else (limit - value) / max(1 - limit, 1e-9)
            else:
                found[key] = value / limit - 1 if limit > 0 else math.inf
        if row.fits is not None:
            ram = row.peak_ram_bytes / row.ram_limit_bytes - 1 if row.ram_limit_bytes else -1.0
            found["fits"] = ram if row.fits or ram > 0 else 1.0  # else it is the flash that is too small
        return found

    def misses(self, row: Row) -> dict[str, float]:
        """The limits that a row breaks, with its excess."""
        return {key: excess for key, excess in self.excess(row).items() if excess > 0}

    def best(self, rows: Sequence[Row]) -> Answer:
        """The answer among the rows of one device.

        Within the limits: the least energy where an accuracy is demanded, else the highest accuracy, ties to the
        less energy. Without any row within them: the row whose largest miss is smallest.
        """
        within = [row for row in rows if not self.misses(row)]
        if within:
            return Answer(self, min(within, key=self.rank))
        nearest = min(rows, key=lambda row: (max(self.misses(row).values()), self.rank(row)), default=None)
        return Answer(self, nearest)

    def rank(self, row: Row) -> tuple[float, float]:
        """Order of rows within the limits, the best first."""
        error, energy_j, _ = row.objectives
        return (error, energy_j) if self.min_accuracy is None else (energy_j, error)


@dataclass(frozen=True)
class Answer:
    """What a budget allows: the best row within it, or the nearest miss (None: there were no rows)."""

    budget: Budget
    row: Row | None

    @property
    def misses(self) -> dict[str, float]:
        """The limits broken; empty if the budget is met."""
        return {} if self.row is None else self.budget.misses(self.row)

    @property
    def met(self) -> bool:
        return self.row is not None and not self.misses

    @property
    def binding(self) -> str | None:
        """The limit missed by most."""
        return max(self.misses, key=self.misses.__getitem__, default=None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "budget": self.budget.limits(),
            "device": None if self.row is None else self.row.device,
            "met": self.met,
            "setting": None if self.row is None else self.row.setting,
            "runs": [] if self.row is None else list(self.row.runs),
            "misses": self.misses,
            "binding": self.binding,
        }


def each_alone_and_all(budget: Budget) -> list[Budget]:
    """A budget for every limit given, and if there are several the whole one."""
    limits = budget.limits()
    alone = [Budget(**{key: value}) for key, value in limits.items()]
    return [*alone, budget] if len(limits) > 1 else alone
