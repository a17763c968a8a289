"""Scenario adapt: a network meets another domain; what it gains is measured, what that costs is billed."""

import pytest

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment
from qtrain.training.loop import _epochs_apart
from qtrain.training.setup import build

DRIFT = {
    "stream.drift": "rotation", "stream.severity": 0.7, "train.steps": 30, "train.batch_size": 32,
    "filter.kind": "none", "prune.kind": "none",
}  # fmt: skip


def experiment(**options):
    return Experiment().with_options(DRIFT | {key.replace("__", "."): value for key, value in options.items()})


def adapted(path, **options):
    given = {"stream__scenario": "adapt", "stream__pretrain_steps": 60, "run__out": str(path)} | options
    return simulate_experiment(experiment(**given))


def test_adaptation_wins_back_what_the_drift_took_and_only_it_is_billed(tmp_path):
    result = adapted(tmp_path / "adapted")
    assert result["source_accuracy"] > 0.9 > result["accuracy_before"]
    assert result["accuracy"] > result["accuracy_before"] + 0.1
    assert result["accuracy_before"] < result["prequential_accuracy"] < result["accuracy"]
    scratch = simulate_experiment(experiment(run__out=str(tmp_path / "scratch")))
    assert result["macs"] == scratch["macs"]  # pretraining and predictions are nobody's bill
    assert result["bills"][0]["energy_j"] == scratch["bills"][0]["energy_j"]
    assert "prequential_accuracy" not in scratch


def test_a_growing_drift_is_milder_on_the_way(tmp_path):
    at_once = adapted(tmp_path / "a")
    growing = adapted(tmp_path / "b", stream__kind="drifting")
    assert growing["accuracy_before"] == at_once["accuracy_before"]  # both judged where the drift ends
    assert growing["prequential_accuracy"] > at_once["prequential_accuracy"]


def test_a_drift_that_grows_must_be_named():
    with pytest.raises(QtrainError, match="needs stream"):
        build(experiment(stream__kind="drifting", stream__drift="none"))


def test_adapting_needs_a_trained_network():
    with pytest.raises(QtrainError, match="give --pretrain-steps or --init"):
        build(experiment(stream__scenario="adapt"))


@pytest.mark.parametrize(("steps_per_epoch", "n_steps", "apart"), [(1, 400, 8), (938, 938, 938), (23, 460, 23)])
def test_evaluations_stay_few_where_an_epoch_is_short(steps_per_epoch, n_steps, apart):
    assert _epochs_apart(steps_per_epoch, n_steps) == apart  # 400 // (50 x 1) = 8 epochs; one epoch where they are few
