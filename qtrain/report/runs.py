"""Finished runs, read from their folders and priced on the devices asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.simulate import BASELINE_FOLDER
from qtrain.store import Run, find_runs
from qtrain.summary import RunRecord


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run's folder: its experiment, its result, and its bills in the order of the devices."""

    run: Run
    result: dict[str, Any]
    bills: tuple[dict[str, Any], ...]

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def experiment(self) -> Experiment:
        return self.run.experiment

    @cached_property
    def record(self) -> RunRecord:
        """Its trace and schedules."""
        return RunRecord.from_json(self.run.trace())

    @cached_property
    def baseline(self) -> dict[str, Any] | None:
        """The result of the dense float32 run on the same stream beside this one, if there is one."""
        folder = self.path / BASELINE_FOLDER
        return Run.open(folder).result() if folder.is_dir() else None


def read_runs(
    paths: Iterable[str | Path], devices: Sequence[str] = (), kernels: str | None = None
) -> tuple[list[FinishedRun], list[Path]]:
    """The finished runs at or beneath the folders `paths`, and the folders of unfinished ones.

    All have bills on `devices`, by default on every device that one of them was priced on. A bill is that of the
    run's result; where that has none, and for other `kernels`, the run is priced anew from its trace.
    Raises QtrainError for a path that holds no run, or a damaged one.
    """
    folders = dict.fromkeys(folder for path in paths for folder in _folders(Path(path)))
    found = [(run, run.result()) for run in map(Run.open, folders)]
    finished = [(run, result) for run, result in found if result is not None]
    names = devices or list(dict.fromkeys(bill["device"] for _, result in finished for bill in result["bills"]))
    runs = [FinishedRun(run, result, tuple(_bills(run, result, names, kernels))) for run, result in finished]
    return runs, [run.path for run, result in found if result is None]


def _folders(path: Path) -> list[Path]:
    found = find_runs(path)
    if not found:
        raise QtrainError(f"{path}: no run there or beneath; make one with: qtrain simulate --out {path}")
    return found


def _bills(run: Run, result: dict[str, Any], names: Sequence[str], kernels: str | None) -> list[dict[str, Any]]:
    there = {bill["device"]: bill for bill in result["bills"]}
    missing = [name for name in names if kernels or name not in there]
    if missing:
        record = RunRecord.from_json(run.trace())
        there |= dict(zip(missing, record.bills(missing, kernels), strict=True))
    return [there[name] for name in names]
