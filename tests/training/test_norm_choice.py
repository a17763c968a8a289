"""Runs whose normalizations are chosen: by option and by layer, from weights of before and after, and resumed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.export import trained_network
from qtrain.layers.norms.modules import FrozenNorm, RangeNorm
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.store import Run
from qtrain.training import loop
from qtrain.training.setup import build


def network() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, bias=False),
        nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    model.input_shape, model.n_classes = (1, 8, 8), 10
    return model


def experiment(folder: Path, **options: object) -> Experiment:
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    fixed = {
        "model": f"{__name__}:network", "filter.kind": "none", "train.steps": 12, "train.batch_size": 16,
        "run.engine": "torch", "run.out": str(folder),
    }  # fmt: skip
    return Experiment().with_options(fixed | dotted)


@pytest.mark.parametrize("norm", ["range", "frozen"])
def test_interrupted_and_resumed_is_the_same_run(norm: str, tmp_path: Path) -> None:
    simulate_experiment(experiment(tmp_path / "whole", train__norm=norm))

    def interrupt(progress: loop.Progress) -> None:
        if progress.step == 7:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(loop.Interrupted):
        simulate_experiment(experiment(tmp_path / "part", train__norm=norm), interrupt)
    resume_run(str(tmp_path / "part"))
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("part", "whole")]
    assert files[0] == files[1]


def test_a_rule_of_one_layer_is_stronger_than_the_option(tmp_path: Path) -> None:
    given = experiment(tmp_path, train__norm="range").with_layer("4", norm="frozen", variance_bits=12)
    given = Experiment.from_toml(given.to_toml())
    model = build(given).net.model
    assert isinstance(model[1], RangeNorm)
    assert isinstance(model[4], FrozenNorm)


def test_a_folded_run_starts_from_a_batch_normalized_one_and_from_its_own_kind(tmp_path: Path) -> None:
    """Folded, the 8-bit network knows what it knew before: its accuracy moves by no more than the coarser weights
    cost. What such a run wrote is of the folded model."""
    trained = simulate_experiment(experiment(tmp_path / "batch", train__steps=120, optimizer__lr=0.05))
    weights = str(tmp_path / "batch" / "weights.safetensors")
    folded = simulate_experiment(experiment(tmp_path / "folded", train__norm="folded", init=weights))
    assert trained["accuracy"] > 0.9
    assert folded["accuracy_before"] > trained["accuracy"] - 0.05
    net = trained_network(Run.open(tmp_path / "folded"))
    assert [layer.kind for layer in net.network.layers] == ["input", "conv", "conv", "linear", "loss"]
    own = str(tmp_path / "folded" / "weights.safetensors")
    again = build(experiment(tmp_path / "again", train__norm="folded", init=own))
    assert torch.equal(again.net.model[0].bias, net.model[0].bias)
    with pytest.raises(QtrainError, match=r"tensor '1\.weight' is missing; give weights of the same model"):
        build(experiment(tmp_path / "wrong", train__norm="range", init=own))


def test_an_unknown_normalization_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(QtrainError, match=r"train\.norm \(--norm\) = 'layer': must be one of batch, range"):
        experiment(tmp_path, train__norm="layer")
