"""Comparing settings: a grid carried out and its finished runs side by side, or runs that are there already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.report import Budget, Row, compare, read_runs
from qtrain.report.budget import Answer, each_alone_and_all
from qtrain.sweep import Grid, Sweep, engines_apart, read_grid, run_trials


@dataclass(frozen=True)
class Comparison:
    """Rows, the answer to each budget on each device, and how the runs came about."""

    rows: list[Row]
    answers: list[Answer]
    sweep: Sweep
    unfinished: list[Path]

    def to_json(self) -> dict[str, Any]:
        """Plain data; `computed` and `reused` count trials."""
        return {
            "computed": len(self.sweep.computed),
            "reused": len(self.sweep.reused),
            "failed": self.sweep.failed,
            "unfinished": self.unfinished,
            "rows": [row.to_json() for row in self.rows],
            "best": [answer.to_json() for answer in self.answers],
        }


def compare_runs(
    paths: Sequence[str | Path], devices: Sequence[str] = (), kernels: str = "", budget: Budget | None = None
) -> Comparison:
    """Compare the finished runs at or beneath `paths`; raises QtrainError if there are none."""
    runs, unfinished = read_runs(paths, devices, kernels or None)
    if not runs:
        raise QtrainError(f"no finished run in {', '.join(map(str, paths))}; resume one with: qtrain simulate --resume")
    rows = compare(runs)
    budgets = each_alone_and_all(budget or Budget())
    names = dict.fromkeys(row.device for row in rows)
    answers = [one.best([row for row in rows if row.device == name]) for name in names for one in budgets]
    return Comparison(rows, answers, Sweep([run.path for run in runs], [run.path for run in runs]), unfinished)


def compare_grid(
    grid: Grid,
    out: str | Path,
    *,
    budget: Budget | None = None,
    n_workers: int = 0,
    engine: str = "local",
    address: str = "",
    on_change: Callable[[Sweep], None] | None = None,
) -> Comparison:
    """Carry out the grid's trials beneath `out` and compare them; raises QtrainError if every trial failed."""
    sweep = run_trials(
        grid.experiments(), out, n_workers=n_workers, engine=engine, address=address, on_change=on_change
    )
    if not sweep.runs:
        raise QtrainError(f"all {sweep.n_trials} trials failed; the first: {sweep.failed[0]['error']}")
    execution = grid.base.run
    found = compare_runs(sweep.runs, execution.devices, execution.kernels, budget)
    return Comparison(found.rows, found.answers, sweep, found.unfinished)


def comparison(
    paths: Sequence[str],
    texts: Mapping[str, Iterable[str]],
    n_seeds: int | None = None,
    *,
    out: str | Path = "runs",
    budget: Budget | None = None,
    n_workers: int = 0,
    engine: str = "local",
    address: str = "",
    on_change: Callable[[Sweep], None] | None = None,
) -> Comparison:
    """What `qtrain compare` does: compare the runs at `paths`, or carry out the grid of a TOML file and `texts`.

    `engine` is where trials are carried out (local, ray), or an experiment's own `run.engine`.
    """
    if paths and not any(path.endswith(".toml") for path in paths):
        fixed = sorted(set(texts) - {"run.devices", "run.kernels"})
        if fixed or n_seeds is not None:
            given = ", ".join(fixed) or "--seeds"
            raise QtrainError(f"finished runs are compared as they are: leave out {given}, or give no runs")
        execution = Grid().with_texts(texts).base.run
        devices = execution.devices if "run.devices" in texts else ()
        return compare_runs(paths, devices, execution.kernels, budget)
    if len(paths) > 1:
        raise QtrainError("give one grid file, or folders of runs")
    engine, texts = engines_apart(engine, texts)
    grid = (read_grid(paths[0]) if paths else Grid()).with_texts(texts, n_seeds)
    return compare_grid(
        grid, out, budget=budget, n_workers=n_workers, engine=engine, address=address, on_change=on_change
    )
