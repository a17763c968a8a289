"""Choosing by rank: chances, systematic draws and the loss quantile, from first principles."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain.filters.recent import N_LOSSES, Chances, LossQuantile, Recent, drawn
from qtrain.filters.threshold import LEAST


@given(share=st.floats(0.05, 0.95), lean=st.floats(0, 1), m=st.integers(32, 200), seed=st.integers(0, 99))
def test_the_mean_chance_is_the_share(share, lean, m, seed):
    """Ranks (i + d) / m with d = 1/2 are midpoints of m equal cells: sum of u^beta / m is the midpoint rule for
    1 / (beta + 1) = share, off by less than the largest cell, max u^beta / m <= 1 / m."""
    scores = torch.randperm(m, generator=torch.Generator().manual_seed(seed)).double()
    chances = Chances(share).of(scores, torch.full((m,), 0.5), lean)
    assert float(chances.mean()) == pytest.approx(share, abs=1 / m)
    assert (chances >= 0).all()
    assert (chances <= 1).all()


def test_a_filter_that_knows_nothing_is_random_dropping():
    """All scores equal: ranks are the draws, so that chances are those of uniform ranks whatever the score."""
    draws = torch.rand(1000, generator=torch.Generator().manual_seed(0)).double()
    chances = Chances(0.25).of(torch.zeros(1000), draws, 1.0)
    assert torch.allclose(chances, draws**3)  # beta = 1/0.25 - 1 = 3


def test_without_confidence_the_score_does_not_matter():
    assert (Chances(0.3).of(torch.arange(64).double(), torch.rand(64), 0.0) == 0.3).all()


def test_higher_scores_are_kept_more_often():
    chances = Chances(0.3).of(torch.arange(64).double(), torch.rand(64), 0.5)
    assert (chances.diff() > 0).all()


def test_the_papers_rule_keeps_from_even_odds():
    assert Chances(None).of(torch.tensor([-0.1, 0.0, 0.1]), torch.rand(3), 1.0).tolist() == [0, 1, 1]


@given(values=st.lists(st.floats(0, 1), max_size=100), start=st.floats(0, 1, exclude_max=True))
def test_a_systematic_sample_takes_as_many_as_its_chances_sum_to(values, start):
    """floor(sum + start) - floor(start): the sum rounded up or down (up to rounding of the sum itself)."""
    chances = torch.tensor(values, dtype=torch.float64)
    n = int(drawn(chances, torch.tensor([start], dtype=torch.float64)).sum())
    assert abs(n - float(chances.sum())) < 1 + 1e-9


def test_each_is_drawn_with_its_chance():
    """Over the 1000 starts k / 1000 an instance of chance c, a multiple of 0.001, is taken exactly 1000 c times."""
    chances = torch.tensor([0.2, 0.5, 0.125, 1.0, 0.0], dtype=torch.float64)
    taken = sum(drawn(chances, torch.tensor([(k + 0.5) / 1000], dtype=torch.float64)).long() for k in range(1000))
    assert taken.tolist() == [200, 500, 125, 1000, 0]


def test_recent_holds_the_last_mini_batches():
    """Mini-batches of 3 until they are those of at least 5 instances: the last two."""
    recent = Recent(5)
    for step in range(4):
        recent.add(3, torch.tensor([float(step)]))
    assert recent.sorted()[0].tolist() == [3.0, 2.0]


def test_a_dropped_instance_stands_for_those_it_was_drawn_from():
    """Known losses 4, 3, 2 (weight 1) and 1 (weight 7), mass 10: the share 0.2 reaches down to 3, 0.4 to 1."""
    losses, weights = torch.tensor([1.0, 4.0, 2.0, 3.0]), torch.tensor([7.0, 1.0, 1.0, 1.0])
    for rate, value, high in ((0.2, 3.0, 2), (0.4, 1.0, 4)):
        threshold = LossQuantile(rate, 10)
        assert int(threshold.high(losses, weights, 10).sum()) == high
        assert threshold.value == value


def test_confidence_is_the_mean_probability_of_the_right_class():
    """-log of 0.5 (weight 3) and 1.0 (weight 1): (3 * 0.5 + 1) / 4 = 0.625; nothing known: 0."""
    threshold = LossQuantile(0.3, 10)
    assert threshold.confidence == 0.0
    threshold.high(torch.tensor([0.5, 1.0]).log().neg(), torch.tensor([3.0, 1.0]), 4)
    assert threshold.confidence == pytest.approx(0.625)


def test_losses_of_zero_are_not_all_high():
    """The threshold stays at the least loss that fixed point tells from zero."""
    threshold = LossQuantile(0.3, 10)
    assert not threshold.high(torch.zeros(8), torch.ones(8), 8).any()
    assert threshold.value == LEAST


def test_what_is_remembered_survives_json():
    one, two = LossQuantile(0.3, 10), LossQuantile(0.3, 10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        one.high(torch.rand(40, generator=generator), torch.rand(40, generator=generator), N_LOSSES // 2)
    two.load_state(json.loads(json.dumps(one.state())))
    assert two.confidence == one.confidence
    assert two.recent.state() == one.recent.state()
