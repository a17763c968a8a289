"""Losses at the outputs: values worked out by hand, and gradients against finite differences."""

import math

import pytest
import torch

from qtrain.formats.fixed import FixedTensor
from qtrain.recipes.contrastive import contrast_scores, farthest_first, nt_xent
from qtrain.recipes.neighbours import Neighbours
from qtrain.recipes.soft_targets import averaged, divergence, weighted_sum


def numeric(function, x, step=1e-5):
    """Central differences of a scalar function of x."""
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        up, down = x.clone(), x.clone()
        up.view(-1)[i] += step
        down.view(-1)[i] -= step
        gradient.view(-1)[i] = (function(up) - function(down)) / (2 * step)
    return gradient


@pytest.fixture
def x():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_nt_xent_of_orthogonal_pairs():
    # two instances, views equal, instances orthogonal, temperature 1: each row meets cosines 1 (its partner), 0, 0
    outputs = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0], [0.0, 1.0]])
    losses, _ = nt_xent(outputs, 1.0)
    assert losses.tolist() == pytest.approx([math.log(math.e + 2) - 1] * 2)


def test_nt_xent_of_one_instance_is_zero_without_slope():
    losses, gradient = nt_xent(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 0.5)
    assert losses.tolist() == [0.0]
    assert gradient.abs().max() == 0


def test_gradients_are_those_of_the_losses(x):
    n = len(x)  # nt_xent: the sum of 2 n terms is n times its n / 2 means, times 2
    assert torch.allclose(nt_xent(x, 0.5)[1], numeric(lambda v: 2 * nt_xent(v, 0.5)[0].sum(), x), atol=1e-6)
    bank = Neighbours(torch.randn(9, 4, dtype=torch.float64), torch.arange(9) % 3, 3, 9, 0.2)
    labels = torch.arange(n) % 3

    def lost(v):  # k is the whole bank: the votes' shares are the loss's
        return -bank.votes(v).gather(1, labels.view(-1, 1)).log().sum()

    assert torch.allclose(bank.slope(x, labels), numeric(lost, x), atol=1e-6)
    clean = x.flip(0).clone()

    def apart(changed, other):
        p, q = changed.log_softmax(1), other.log_softmax(1)
        return (p.exp() * (p - q)).sum()

    at_changed, at_clean = divergence(x, clean)
    assert torch.allclose(at_changed, numeric(lambda v: apart(v, clean), x), atol=1e-6)
    assert torch.allclose(at_clean, numeric(lambda v: apart(x, v), clean), atol=1e-6)


@pytest.mark.parametrize("exponent", [None, -4])
def test_a_weighted_sum_has_the_gradient_of_its_own_weights(x, exponent):
    values = torch.round(x * 16) / 16
    targets = torch.softmax(x.flip(1), 1)
    weights = torch.tensor([0.5, 0.0, 0.25, 1.0, 0.125, 2.0], dtype=torch.float64)
    losses, error, scale = weighted_sum(FixedTensor(values, exponent), targets, weights)
    p = torch.softmax(values, 1)
    # fixed point: probabilities of 24 bits from 16-bit exponentials
    assert torch.allclose(error * scale, weights.view(-1, 1) * (p - targets), atol=1e-4)
    assert torch.allclose(losses, -(targets * p.log()).sum(1), atol=1e-2)


def test_a_mean_keeps_its_divisor_out_of_fixed_point_errors(x):
    error, scale = averaged(FixedTensor(x, -4), x, 6)
    assert (error == x).all()
    assert scale == 1 / 6
    error, scale = averaged(FixedTensor(x), x, 6)
    assert torch.allclose(error, x / 6)
    assert scale == 1


def test_contrast_scores_run_from_same_to_opposite():
    outputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    mirrored = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert contrast_scores(outputs, mirrored).tolist() == [0.0, 1.0, 2.0]


def test_farthest_first_covers_every_cluster():
    outputs = torch.tensor([[1.0, 0.01], [1.0, 0.0], [0.0, 1.0], [0.01, 1.0], [-1.0, 0.0]])
    chosen = farthest_first(outputs, 3).tolist()
    assert sorted(chosen) in ([0, 2, 4], [0, 3, 4])
    assert sorted(farthest_first(torch.ones(4, 2), 4).tolist()) == [0, 1, 2, 3]  # equal ones: each once


def test_neighbours_vote_by_distance():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.2, 1.0]])
    neighbours = Neighbours(bank, torch.tensor([0, 0, 1, 1, 1]), 2, 2, 0.1)
    assert neighbours.predict(torch.tensor([[5.0, 0.0], [0.0, 0.3]])).tolist() == [0, 1]
    assert neighbours.votes(torch.tensor([[5.0, 0.0]])).tolist() == [[1.0, 0.0]]  # k = 2: both of class 0
