"""Checks run over every filter, and what each of the simple ones is."""

import dataclasses
import inspect
import json

import pytest
import torch

from qtrain import filters
from qtrain.discovery import discover
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.filters.base import chance


@pytest.fixture(params=filters.names())
def kind(request):
    return request.param


def test_every_filter_an_experiment_may_name_exists():
    field = next(f for f in dataclasses.fields(Experiment().filter) if f.name == "kind")
    assert sorted(field.metadata["valid"]) == sorted(filters.names())


def test_a_filter_built_by_hand_has_the_defaults_of_an_experiment(kind):
    settings = Experiment().filter
    for parameter in inspect.signature(discover("qtrain.filters", "FILTER")[kind]).parameters.values():
        if parameter.default is not inspect.Parameter.empty and hasattr(settings, parameter.name):
            assert parameter.default == getattr(settings, parameter.name), parameter.name


def test_a_choice_is_disjoint_and_ascending(lab, kind):
    for kept, uncertain, rows, _ in lab.run(lab.make(kind), range(6)):
        together = kept + uncertain
        assert kept == sorted(kept)
        assert uncertain == sorted(uncertain)
        assert len(set(together)) == len(together)
        assert set(together) <= set(range(lab.M))
        assert rows is None or (rows == sorted(set(rows)) and set(rows) <= set(range(len(kept))))


def test_positions_are_int64(lab, kind):
    choice = lab.make(kind).choose(*lab.stream(0), 0)
    assert choice.kept.dtype == choice.uncertain.dtype == torch.int64


@pytest.mark.parametrize("m", [0, 1])
def test_a_mini_batch_may_hold_one_instance_or_none(lab, kind, m):
    for kept, uncertain, _, metrics in lab.run(lab.make(kind), range(4), m):
        assert len(kept) + len(uncertain) <= m
        assert all(value == value for value in metrics.values())  # no NaN


def test_the_same_seed_gives_the_same_run(lab, kind):
    assert lab.run(lab.make(kind), range(8)) == lab.run(lab.make(kind), range(8))


def test_a_resumed_filter_goes_on_as_if_never_stopped(lab, kind):
    straight = lab.run(lab.make(kind), range(8))
    first = lab.make(kind)
    lab.run(first, range(4))
    second = lab.make(kind)
    second.load_state(json.loads(json.dumps(first.state())))
    if first.network is not None:  # as a checkpoint does
        second.network.model.load_state_dict(first.network.model.state_dict())
        second.network.load_numbers_state(json.loads(json.dumps(first.network.numbers_state())))
        second.optimizer.load(first.optimizer.state(), first.optimizer.tensors())
    assert lab.run(second, range(4, 8)) == straight[4:]


def test_only_a_filter_with_a_network_asks_for_one():
    experiment = Experiment().with_options({"filter.kind": "instance"})
    with pytest.raises(QtrainError, match="network"):
        filters.build(experiment)


@pytest.mark.parametrize("share", ["rate", "keep"])
def test_a_share_of_one_keeps_all(lab, kind, share):
    filter_ = lab.make(kind, **{share: 1.0})
    used = {"instance": "rate", "none": share}.get(kind, "keep")
    if used == share:
        assert isinstance(filter_, filters.KeepAll)


@pytest.mark.parametrize("name", ["smb", "smd", "random", "ohem", "selective-backprop"])
def test_the_share_kept_is_the_share_asked_for(lab, name):
    """Over 400 steps of 16: a binomial share over 6400 instances deviates by at most 5 sqrt(.3 .7 / 6400) = 0.029, one
    over 400 mini-batches by 5 sqrt(.3 .7 / 400) = 0.115; selective backprop's mean is that of uniform percentiles."""
    log = lab.run(lab.make(name, keep=0.3), range(400))
    n = sum(len(kept) if rows is None else len(rows) for kept, _, rows, _ in log)
    bound = {"smb": 1e-9, "smd": 0.115, "random": 0.029, "ohem": 0.02, "selective-backprop": 0.05}[name]
    # ohem: round(.3 * 16) = 5 of 16, 0.3125
    assert n / (400 * lab.M) == pytest.approx(0.3125 if name == "ohem" else 0.3, abs=bound)


def test_smb_skips_evenly(lab):
    """keep 0.4: floor(0.4 t) = 0, 0, 1, 1, 2 for t = 1..5, so that steps 2 and 4 of every five train."""
    kept = [bool(len(lab.make("smb", keep=0.4).choose(*lab.stream(0), step).kept)) for step in range(10)]
    assert kept == [False, False, True, False, True] * 2


def test_ohem_goes_back_with_the_highest_losses(lab):
    """round(0.5 * 5) = 2 (halves to even); of the three 2.0 the first is taken."""
    rows = lab.make("ohem", keep=0.5).backward_rows(torch.tensor([1.0, 2.0, 3.0, 2.0, 2.0]))
    assert rows.tolist() == [1, 2]


def test_ohem_keeps_at_least_one(lab):
    assert lab.make("ohem", keep=0.01).backward_rows(torch.tensor([0.1, 0.3])).tolist() == [1]


def test_selective_backprop_prefers_high_losses(lab):
    """keep 0.25: beta = 3. Of losses 1..100 the one of rank r goes back with (r/100)^3, the upper half with a mean of
    (1 - 1/16) / 4 / (1/2) = 0.469, the lower with 0.031; over 200 steps of 50 each, sd <= sqrt(.25/10000) = 0.005."""
    filter_ = lab.make("selective-backprop", keep=0.25)
    losses = torch.arange(1, 101).float()
    images = torch.zeros(100, *lab.SHAPE)
    upper = lower = 0
    for step in range(200):
        filter_.choose(images, None, step)
        rows = filter_.backward_rows(losses)
        upper += int((rows >= 50).sum())
        lower += int((rows < 50).sum())
    assert upper / 10_000 == pytest.approx(0.469, abs=0.03)
    assert lower / 10_000 == pytest.approx(0.031, abs=0.03)


def test_chance_is_uniform_and_its_streams_are_independent():
    """Mean of n = 20000 uniform numbers: 1/2 within 5 / sqrt(12 n) = 0.0102; the correlation of two streams 0 within
    5 / sqrt(n) = 0.036."""
    like = torch.zeros(1, dtype=torch.uint8)
    a, b = chance(20_000, 1, 2, "a", like), chance(20_000, 1, 2, "b", like)
    assert float(a.min()) >= 0
    assert float(a.max()) < 1
    assert float(a.mean()) == pytest.approx(0.5, abs=0.0102)
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.036


def test_an_unknown_kind_names_the_nearest():
    experiment = Experiment()
    object.__setattr__(experiment.filter, "kind", "instanse")
    with pytest.raises(QtrainError, match="instance"):
        filters.build(experiment)
