"""Training where the CPU is not: every tensor lies on the one device or is brought over, and the bits are the same."""

import signal

import numpy as np
import pytest

from cli import main
from qtrain.experiment import Experiment
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.store import Run
from qtrain.training import loop, setup

elsewhere = pytest.importorskip("tests.training.elsewhere", exc_type=ImportError)  # of a PyTorch that can pretend one

SMALL = {"train.steps": 6, "train.batch_size": 16, "run.engine": "torch"}
RUNS = [
    {},
    {"numbers.bits": 32},
    {"numbers.format": "bfp"},
    {"filter.steer": "true-high"},
    {"filter.kind": "ohem"},
    {"filter.kind": "selective-backprop", "prune.kind": "channel+stochastic"},
    {"model": "resnet8", "input_shape": (1, 8, 8), "train.survival": 0.5, "filter.kind": "smd"},
]


@pytest.fixture
def on_gpu(monkeypatch):
    def begin():
        monkeypatch.setattr(setup, "place", lambda experiment: elsewhere.PLACE)
        return elsewhere.OnElsewhere()

    return begin


def run(folder, options, on_progress=None):
    result = simulate_experiment(Experiment().with_options(SMALL | {"run.out": str(folder)} | options), on_progress)
    return result["accuracy"], result["loss"], result["macs"]["total"], weights(folder)


def weights(folder):
    return {name: np.asarray(value).tobytes() for name, value in Run.open(folder).weights().items()}


@pytest.mark.parametrize("options", RUNS, ids=lambda options: ",".join(map(str, options.values())) or "default")
def test_it_trains_there_to_the_same_bits(options, tmp_path, on_gpu):
    here = run(tmp_path / "here", options)
    with on_gpu():
        assert run(tmp_path / "there", options) == here


@pytest.mark.parametrize("bits", [32, 8])
def test_a_run_goes_on_there_from_its_checkpoint(bits, tmp_path, on_gpu):
    def interrupt(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    here = run(tmp_path / "here", {"numbers.bits": bits})
    with on_gpu():
        with pytest.raises(loop.Interrupted):
            run(tmp_path / "there", {"numbers.bits": bits}, interrupt)
        resume_run(str(tmp_path / "there"))
    assert weights(tmp_path / "there") == here[-1]


def test_a_tensor_left_behind_is_found():
    """The pretended device refuses what a GPU refuses."""
    with elsewhere.OnElsewhere():
        x = elsewhere.torch.ones(3).to(elsewhere.PLACE)
        assert (x + 1).tolist() == [2.0, 2.0, 2.0]
        with pytest.raises(RuntimeError, match="both places"):
            x + elsewhere.torch.ones(3)
        with pytest.raises(RuntimeError, match="numpy"):
            x.numpy()


@pytest.mark.skipif(elsewhere.torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_one_line():
    from click.testing import CliRunner

    result = CliRunner().invoke(main, ["simulate", "--gpu"])
    assert result.exit_code != 0
    assert result.output.strip().splitlines()[-1].endswith("finds no CUDA GPU here; leave --gpu out")


def test_another_recipe_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    asked = Experiment().with_options({"run.gpu": True, "recipe": "fixmatch"})
    with pytest.raises(setup.QtrainError, match="fixmatch computes on the CPU"):
        setup.place(asked)
