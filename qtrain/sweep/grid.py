"""A grid: every combination of the values given for each option, over several seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwmodel.errors import shown, unknown
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment, Option, options, whole_or_text
from qtrain.experiment import toml as tables_of

BITS, FORMAT = "numbers.bits", "numbers.format"
TABLE = "grid"
"""Table of a grid's TOML file that holds a list of values an option; the rest of the file is an experiment."""
MAX_TRIALS = 10_000
"""Described in two seconds, trained in days."""
_WHOLE = frozenset({"train.layers", "train.bias_only", "init", "data.dir", "run.out"})
"""Options whose text may itself hold commas (globs, paths): one value each time they are given."""


def is_axis(option: Option) -> bool:
    """Whether the option may take several values in a grid: those that can change a result and are no lists."""
    return option.changes_result and not option.is_list


@dataclass(frozen=True)
class Grid:
    """`base` changed by every combination of the `axes` (option -> values), each at seeds base.seed, +1, ..."""

    base: Experiment = field(default_factory=Experiment)
    axes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    n_seeds: int = 1

    def __post_init__(self) -> None:
        if self.n_seeds < 1:
            raise QtrainError(f"--seeds {shown(self.n_seeds)}: needs at least one seed")
        n_trials = self.n_seeds * math.prod(len(values) for values in self.axes.values())
        if n_trials > MAX_TRIALS:
            raise QtrainError(f"grid: {shown(n_trials)} trials, more than the {MAX_TRIALS} allowed; give fewer values")
        if self.n_seeds > 1 and "seed" in self.axes:
            raise QtrainError("give either the seeds themselves (--seed 1,2,3) or their number (--seeds N)")

    def experiments(self) -> list[Experiment]:
        """All trials, seeds innermost, each different one once. Raises QtrainError for an invalid combination."""
        found: dict[str, Experiment] = {}
        for values in itertools.product(*self.axes.values()):
            setting = dict(zip(self.axes, values, strict=True))
            try:
                experiment = self.base.with_options(setting)
            except QtrainError as error:
                raise QtrainError(f"grid at {_shown(setting)}: {error}") from None
            for i in range(self.n_seeds):
                trial = experiment.with_options({"seed": experiment.seed + i})
                found.setdefault(trial.fingerprint, trial)
        return list(found.values())

    def with_texts(self, texts: Mapping[str, Iterable[str]], n_seeds: int | None = None) -> Grid:
        """A copy with options from the command line: a text each time one was given, several values by commas.

        Options that are lists themselves, and those that cannot change a result, go to every trial.
        """
        known = {option.key: option for option in options()}
        base, axes = self.base, dict(self.axes)
        for key, given in texts.items():
            parts = [part for text in given for part in ([text] if key in _WHOLE else _split(text))]
            parts = list(dict.fromkeys(parts))
            if key in (BITS, FORMAT):
                values: tuple[Any, ...] = tuple(map(whole_or_text, parts) if key == BITS else parts)
            elif known[key].per_item:
                base = base.with_options({key: tuple(parts)})
                continue
            elif is_axis(known[key]):
                values = tuple(known[key].parse(part) for part in parts)
            else:
                base = base.with_options({key: known[key].parse(",".join(parts))})
                continue
            axes.pop(key, None)
            if len(values) == 1:
                base = base.with_options({key: values[0]})
            else:
                axes[key] = values
        return Grid(base, axes, self.n_seeds if n_seeds is None else n_seeds)


def read_grid(path: str | Path) -> Grid:
    """A grid from a TOML file: an experiment, and a table [grid] such as {"numbers.bits" = [4, 8], seeds = 3}."""
    try:
        tables = tables_of.parse_tables(tables_of.read_text(Path(path)))
        rows = tables.pop(TABLE, {})
        if not isinstance(rows, Mapping):
            raise QtrainError(f"{TABLE}: must be a table of lists")
        n_seeds = rows.get("seeds", 1)
        if type(n_seeds) is not int:
            raise QtrainError(f"{TABLE}.seeds = {shown(n_seeds)}: must be a whole number")
        axes = {key: _values(key, values) for key, values in rows.items() if key != "seeds"}
        grid = Grid(Experiment.from_tables(tables), axes, n_seeds)
        grid.experiments()
    except QtrainError as error:
        raise QtrainError(f"{path}: {error}") from None
    return grid


def _values(key: str, values: object) -> tuple[Any, ...]:
    keys = {BITS, FORMAT} | {option.key for option in options() if is_axis(option)}
    if key not in keys:
        raise QtrainError(f"{TABLE}: {unknown('option', key, sorted(keys))}")
    if not isinstance(values, list) or not values:
        raise QtrainError(f'{TABLE}."{key}": must be a list of at least one value')
    return tuple(values)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _shown(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {shown(value)}" for key, value in setting.items())
