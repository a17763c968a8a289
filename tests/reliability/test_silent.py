"""What goes wrong in silence is said once, by name, in the result's warnings; with --strict it is an error."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hwmodel import devices, network, pricing
from hwmodel.errors import HwmodelError
from hwmodel.operations import Op, Widths
from hwmodel.trace import Trace
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.filters import dead
from qtrain.formats.fixed import MIN_EXPONENT
from qtrain.layers import NumberPlan, quantize
from qtrain.models import build
from qtrain.recipes import Batch
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.training import loop, setup
from qtrain.training.health import MAX_EXPONENT, NumericsHealth
from qtrain.training.setup import Notices, unused
from qtrain.training.watch import AccuracyWatch

SMALL = {"train.steps": 6, "train.batch_size": 16, "run.engine": "torch", "prune.kind": "none"}
CASES = {
    # no loss reaches 50, so that the filter learns in one long step to drop everything; DEAD_STEPS is patched to 3
    "dead filter": (
        {"filter.steer": "true-high", "filter.threshold": 50.0, "filter.lr": 0.5, "filter.audit": 0.0},
        "the filter has kept nothing",
    ),
    # a threshold that no loss falls below: nothing is ever low
    "useless filter": (
        {"filter.steer": "true-high", "filter.threshold": 2.0**-16, "filter.adaptive": False},
        "the filter has kept all",
    ),
    # a product of two 8-bit codes alone has up to 15 bits
    "accumulator": ({"numbers.accumulator_bits": 12, "filter.kind": "none"}, "sums overflow the 12-bit accumulator"),
    # 2 bits, codes -1, 0, 1: a step as large as the largest error
    "numerics": ({"numbers.error_bits": 2, "filter.kind": "none"}, "flushed to zero"),
}


def run(folder: Path, **changes: object) -> dict:
    return simulate_experiment(Experiment().with_options(SMALL | {"run.out": str(folder)} | changes))


@pytest.mark.parametrize("name", CASES)
def test_reported_once_by_name_and_an_error_if_strict(name, tmp_path, monkeypatch):
    monkeypatch.setattr(dead, "DEAD_STEPS", 3)
    monkeypatch.setattr(dead, "DEAD_INSTANCES", 3)
    options, said = CASES[name]
    lines = [line for line in run(tmp_path / "run", **options)["warnings"] if said in line]
    assert lines
    assert len(lines) == len(set(lines))
    with pytest.raises(QtrainError, match=said) as told:
        run(tmp_path / "strict", **options, **{"run.strict": True})
    assert str(told.value).count("\n") == 0


@pytest.mark.parametrize(
    ("glob", "keep", "kind", "said"),
    [
        ("conv1", 0.5, "none", "layers.'conv1'.prune_keep: not read by --prune none; give --prune channel"),
        ("conv1", 0.5, "stochastic", "layers.'conv1'.prune_keep: not read by --prune stochastic"),
        ("conw1", 0.5, "channel", "layers.'conw1': matches no layer, and so changes nothing; did you mean 'conv1'?"),
        ("fc", 0.5, "channel", "layers.'fc'.prune_keep: matches no convolution"),
        ("conv*", 0.5, "channel", ""),
        ("conv*", 0.5, "channel+stochastic", ""),
        ("fc", None, "none", ""),
    ],
)
def test_a_rule_for_layers_that_changes_nothing_is_named(glob, keep, kind, said):
    values = {"prune_keep": keep} if keep else {"error_bits": 6}
    experiment = Experiment().with_options(SMALL | {"filter.kind": "none", "prune.kind": kind})
    lines = setup.build(experiment.with_layer(glob, **values)).notices.lines
    assert [line[: len(said)] for line in lines] == ([said] if said else [])
    assert not any("\n" in line for line in lines)
    if said:
        with pytest.raises(QtrainError, match="--strict"):
            setup.build(experiment.with_options({"run.strict": True}).with_layer(glob, **values))


def test_a_rule_for_the_filters_network_alone_is_idle_and_one_for_a_folded_normalization_is_not():
    """digits-cnn has no stage1_1, a filter of resnet8-a-slim has; rules are for the main network alone. A folded
    normalization is no layer any more, and its rule was followed."""
    given = Experiment().with_options(SMALL | {"filter.network": "resnet8-a-slim"}).with_layer("stage1*", error_bits=6)
    assert setup.build(given).notices.lines[0].startswith("layers.'stage1*': matches no layer")
    folded = Experiment(model="resnet8").with_options(SMALL | {"filter.kind": "none"})
    names = [layer.name for layer in network.load("resnet8").layers if layer.kind == "batchnorm"]
    job = setup.build(folded.with_layer(names[0], norm="folded"))
    assert names[0] not in [layer.name for layer in job.net.network.layers]
    assert job.notices.lines == []


def test_collapsed_accuracy(tmp_path, monkeypatch):
    """A network that names one class for all has the accuracy of that class' share; 2 steps of 721 see all 1,442."""
    real = loop.Job.evaluate
    monkeypatch.setattr(loop.Job, "evaluate", lambda job, step: (0.1, real(job, step)[1]))
    options = {"train.steps": 2, "train.batch_size": 721, "filter.kind": "none"}
    lines = [line for line in run(tmp_path / "run", **options)["warnings"] if "digits-cnn: accuracy" in line]
    assert len(lines) == 1
    assert "10.0 % is no better than chance" in lines[0]
    with pytest.raises(QtrainError, match=r"no better than chance.*--strict"):
        run(tmp_path / "strict", **options, **{"run.strict": True})


@pytest.mark.parametrize(
    ("seen", "final", "whole_epoch", "said"),
    [
        ([0.9], 0.69, True, "fell from 90.0 to 69.0"),  # 21 points below the best
        ([0.5, 0.9, 0.6], 0.69, False, "fell from 90.0"),
        ([0.9], 0.71, True, ""),  # 19 points
        ([], 0.12, True, "no better than chance"),  # chance 0.115 + 0.01
        ([], 0.13, True, ""),
        ([], 0.05, False, ""),  # too early to tell
        ([None], None, True, ""),  # a reconstruction has no accuracy
    ],
)
def test_accuracy_limits(seen, final, whole_epoch, said):
    watch = AccuracyWatch("net", 0.115)
    for accuracy in seen:
        watch.see(accuracy)
    lines = watch.warnings(final, whole_epoch)
    assert len(lines) == bool(said)
    assert all(said in line and line.startswith("net: ") for line in lines)


@pytest.mark.parametrize(
    ("exponent", "said"),
    [(MAX_EXPONENT + 1, "exploding"), (MAX_EXPONENT, ""), (MIN_EXPONENT, "vanishing"), (MIN_EXPONENT + 1, "")],
)
def test_exponent_out_of_bounds(exponent, said):
    net = quantize(build("digits-cnn"), (1, 8, 8), NumberPlan.fixed(8), name="digits-cnn")
    health = NumericsHealth(net)
    notices = Notices()
    name, point = next(iter(net.quantizers().items()))
    for step in range(2):  # twice out of bounds is said once
        health.watch()
        look = {"saturated": 0.0, "zeroed": 0.0, "signal": 1.0, "noise": 0.0, "exponent": exponent}
        point.monitor.append(look)
        for line in health.collect(step):
            notices.add(line)
    assert len(notices.lines) == bool(said)
    assert all(said in line and line.startswith(name.rpartition(".")[0]) for line in notices.lines)


def test_explosion_in_training(tmp_path, monkeypatch):
    """Inputs of 2^40 need codes of at least 2^(40 - 7): the input's exponent says so in the first look."""
    real = loop._Loop._batch
    monkeypatch.setattr(loop._Loop, "_batch", lambda run, step: _times(2.0**40, real(run, step)))
    with pytest.raises(QtrainError, match=r"exploding.*--strict"):
        run(tmp_path / "run", **{"filter.kind": "none", "run.strict": True})


def _times(factor: float, batch: Batch) -> Batch:
    return replace(batch, images=batch.images * factor)


def test_notices_survive_a_resume(tmp_path, monkeypatch):
    """A notice given before an interruption is in the result of the resumed run."""
    real = loop.train_step

    def interrupted(job, batch, rate):
        if batch.step == 0:
            job.notices.add("said before")
        if batch.step == 4:
            raise QtrainError("killed")
        return real(job, batch, rate)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", interrupted)
        with pytest.raises(QtrainError, match="killed"):
            run(tmp_path / "run", **{"run.checkpoint_every": 2, "filter.kind": "none"})
    assert resume_run(str(tmp_path / "run"))["warnings"][0] == "said before"


def test_an_op_without_a_price_names_its_layer():
    """No layer without parameters has a weight gradient."""
    layer = next(la for la in network.load("digits-cnn").layers if la.kind == "maxpool")
    op = Op(layer, Widths.uniform(8), "gradient", "main", 4, layer.out_channels)
    for name in ("stm32l4r5", "gap9", "eyeriss"):
        with pytest.raises(HwmodelError, match=f"layer '{layer.name}'.*maxpool/gradient") as told:
            pricing.price(Trace.of([op]), devices.load(name))
        assert "\n" not in str(told.value)


class Parts(nn.Module):
    """A network with one layer more than qtrain knows how to quantize."""

    def __init__(self, extra: nn.Module) -> None:
        super().__init__()
        self.conv, self.extra, self.fc = nn.Conv2d(1, 4, 3, padding=1), extra, nn.Linear(4 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.extra(self.conv(x)).flatten(1))


def test_a_module_that_the_forward_never_uses_is_named():
    model = Parts(nn.ReLU())
    model.spare = nn.Sequential(nn.Linear(3, 3))
    assert unused(quantize(model, (1, 8, 8), NumberPlan.fixed(8), name="parts")) == ["spare.0"]
    assert unused(quantize(Parts(nn.ReLU()), (1, 8, 8), NumberPlan.fixed(8), name="parts")) == []


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


@pytest.mark.parametrize("extra", [nn.PReLU(), nn.ConvTranspose2d(4, 4, 1), Scale()])
def test_a_trainable_module_without_quantizers_is_refused(extra):
    with pytest.raises(QtrainError, match="extra") as told:
        quantize(Parts(extra), (1, 8, 8), NumberPlan.fixed(8), name="parts")
    assert "\n" not in str(told.value)
