"""Whole runs in other plans and formats, filtered and pruned: interrupted and resumed they end with the same bits."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from qtrain.experiment import Experiment
from qtrain.experiment.sections import PLANS
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.training import loop

CHOICES = [
    *({"numbers.plan": plan} for plan in PLANS if plan != "fixed"),
    {"numbers.format": "bfp", "numbers.bits": 6},
    {"numbers.format": "e5m2", "numbers.master_format": "bfloat16", "numbers.momentum_format": "bfloat16"},
    {"numbers.error_format": "int", "numbers.scale": "moving-average", "numbers.weight_format": "mxfp4",
     "numbers.weight_bits": 4},
]  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: ",".join(map(str, c.values())))
def test_interrupted_and_resumed_is_the_same_run(choice: dict[str, object], tmp_path: Path) -> None:
    experiment = Experiment().with_options({
        "model": "digits-cnn", "train.steps": 8, "train.batch_size": 16, "run.engine": "torch", **choice,
    })  # fmt: skip

    def interrupt(progress: loop.Progress) -> None:
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    def carried_out(name: str, on_progress: object = None) -> dict[str, object]:
        return simulate_experiment(experiment.with_options({"run.out": str(tmp_path / name)}), on_progress)  # type: ignore[arg-type]

    whole = carried_out("whole")
    with pytest.raises(loop.Interrupted):
        carried_out("part", interrupt)
    resumed = resume_run(str(tmp_path / "part"))
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("part", "whole")]
    assert files[0] == files[1]
    assert resumed["accuracy"] == whole["accuracy"]
    assert bool(whole["not_verifiable"]) == (choice != {"numbers.plan": "niti8"})
