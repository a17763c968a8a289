"""The main job: run an experiment in its folder, and the baseline beside it. Imports torch only to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtrain.experiment import Experiment
from qtrain.store import Run

OnProgress = Callable[[Any], None] | None
BASELINE_FOLDER = "baseline"


def simulate_experiment(experiment: Experiment, on_progress: OnProgress = None) -> dict[str, Any]:
    """Train `experiment` in its folder (runs/<id> by default) and return its result; a finished run's is reread.

    Raises QtrainError naming cause and cure.
    """
    path = experiment.run.out or str(Path("runs") / experiment.id)
    with Run.create(path, experiment) as folder:
        return _result(experiment, folder, on_progress)


def resume_run(path: str, on_progress: OnProgress = None) -> dict[str, Any]:
    """Continue the run in the folder `path` from its last checkpoint; a finished run's result is returned as it is."""
    with Run.open(path, writable=True) as folder:
        return _result(folder.experiment, folder, on_progress)


def _result(experiment: Experiment, folder: Run, on_progress: OnProgress) -> dict[str, Any]:
    result = folder.result()
    if result is None:
        from qtrain.training.loop import run

        result = run(experiment, folder, on_progress)
    if experiment.run.baseline:
        result = {**result, "baseline": _baseline(experiment, folder, on_progress)}
    return result


def _baseline(experiment: Experiment, folder: Run, on_progress: OnProgress) -> dict[str, Any]:
    """Dense float32 training on the same stream and seed: its accuracy and loss."""
    dense = experiment.with_options({
        "numbers.bits": 32, "filter.kind": "none", "prune.kind": "none", "run.baseline": False,
        "run.out": str(folder.path / BASELINE_FOLDER),
    })  # fmt: skip
    dense = dataclasses.replace(dense, layers=())
    result = simulate_experiment(dense, on_progress)
    return {key: result[key] for key in ("accuracy", "loss", "run")}
