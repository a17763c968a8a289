"""Checks run over every pruner, alone and inside a network."""

import dataclasses
import inspect
import json

import pytest
import torch

from qtrain import pruners
from qtrain.discovery import discover
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment


def make(kind, **settings):
    options = {f"prune.{key}": value for key, value in settings.items()}
    return pruners.build(Experiment().with_options({"prune.kind": kind, **options}))


@pytest.fixture(params=pruners.names())
def kind(request):
    return request.param


def prune_all(lab, pruner, steps, n=6):
    """(error, channels, density) of every step on one layer."""
    layer, weight = lab.conv(), lab.codes(8, 4, 3, 3, seed=99).values
    return [pruner.prune(lab.codes(n, 8, 4, 4, seed=step), weight, layer, lab.tape(step)) for step in steps]


def test_every_pruner_an_experiment_may_name_exists():
    field = next(f for f in dataclasses.fields(Experiment().prune) if f.name == "kind")
    assert sorted(field.metadata["valid"]) == sorted(pruners.names())


def test_a_pruner_built_by_hand_has_the_defaults_of_an_experiment(kind):
    settings = Experiment().prune
    for parameter in inspect.signature(discover("qtrain.pruners", "PRUNER")[kind]).parameters.values():
        if parameter.name != "layers":
            assert parameter.default == getattr(settings, parameter.name), parameter.name


def test_channels_are_ascending_and_the_shape_stays(lab, kind):
    for error, channels, density in prune_all(lab, make(kind, keep=0.4, window=1), range(4)):
        assert error.shape == (6, 8, 4, 4)
        assert 0 < density <= 1
        if channels is not None:
            assert channels.tolist() == sorted(set(channels.tolist()))
            assert len(channels) == 3  # round(0.4 * 8)


def test_the_density_is_that_of_the_elements_that_take_part(lab):
    for name in ("stochastic", "channel+stochastic"):
        for error, channels, density in prune_all(lab, make(name, keep=0.4, window=1), range(3)):
            left = error if channels is None else error[:, channels]
            assert density == float((left != 0).double().mean())


@pytest.mark.parametrize("n", [0, 1])
def test_a_mini_batch_may_hold_one_instance_or_none(lab, kind, n):
    for error, channels, density in prune_all(lab, make(kind, window=1), range(3), n):
        assert error.shape == (n, 8, 4, 4)
        assert channels is None or len(channels) == 5  # round(0.6 * 8)
        assert density <= 1


def same(first, second):
    return torch.equal(first.error, second.error) and first.density == second.density and (
        first.channels is None if second.channels is None else torch.equal(first.channels, second.channels)
    )  # fmt: skip


def test_a_resumed_pruner_goes_on_as_if_never_stopped(lab, kind):
    straight = prune_all(lab, make(kind, window=3), range(8))
    first = make(kind, window=3)
    prune_all(lab, first, range(5))
    second = make(kind, window=3)
    second.load_state(json.loads(json.dumps(first.state())))
    for ours, theirs in zip(prune_all(lab, second, range(5, 8)), straight[5:], strict=True):
        assert same(ours, theirs)
    prune_all(lab, first, range(5, 8))
    assert first.state() == second.state()


def test_a_linear_layer_is_left_alone(lab, kind):
    layer = lab.conv(kind="linear", size=1)
    error = lab.codes(6, 8)
    pruner = make(kind, window=1, keep=0.5)
    for step in range(3):
        left = pruner.prune(error, lab.codes(8, 4).values, layer, lab.tape(step))
        assert torch.equal(left.error, error.values)
        assert left.channels is None
    assert pruner.keeps(layer) == 1.0


def test_an_unknown_kind_names_the_nearest():
    experiment = Experiment()
    object.__setattr__(experiment.prune, "kind", "chanel")
    with pytest.raises(QtrainError, match="channel"):
        pruners.build(experiment)


def test_layer_rules_override_the_keep_ratio(lab):
    experiment = Experiment().with_options({"prune.keep": 0.5}).with_layer("conv*", prune_keep=0.25)
    pruner = pruners.build(experiment.with_layer("conv2", prune_keep=1.0))
    assert [pruner.keeps(lab.conv(name)) for name in ("first", "conv1", "conv2")] == [0.5, 0.25, 1.0]
