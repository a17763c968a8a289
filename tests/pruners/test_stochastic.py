"""Stochastic pruning (Ye et al. 2020): no bias, the threshold of a normal distribution, prediction, the grid."""

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtrain.formats.fixed import FixedTensor
from qtrain.pruners.stochastic import StochasticGradientPruning, density, on_grid


def primed(lab, tau, name="conv", window=1, rate=0.9):
    """A pruner that predicts this threshold."""
    pruner = StochasticGradientPruning(rate, window)
    pruner.load_state({"thresholds": {name: [tau] * window}})
    return pruner


@pytest.mark.parametrize(("rate", "sigmas"), [(0.7, 1.036), (0.8, 1.282), (0.9, 1.645), (0.95, 1.960), (0.99, 2.576)])
def test_the_threshold_in_sigmas(rate, sigmas):
    """Quantiles of the normal distribution at (1 + rate) / 2, from any table."""
    assert StochasticGradientPruning(rate).sigmas == pytest.approx(sigmas, abs=5e-4)


def test_the_threshold_by_hand(lab):
    """mean |g| of 1, -2, 0, 3 is 1.5; of the non-zero ones 2. sigma = sqrt(pi/2) times that, tau = 1.645 sigma."""
    magnitude = torch.tensor([1.0, 2.0, 0.0, 3.0])
    pruner = StochasticGradientPruning(0.9)
    tau = 1.6449 * math.sqrt(math.pi / 2)
    assert pruner.threshold(magnitude, lab.conv(normalized=True)) == pytest.approx(1.5 * tau, rel=1e-4)
    sparse = lab.conv(), lab.conv(activation="relu"), lab.conv(activation="relu", normalized=True)
    for layer in sparse:
        assert pruner.threshold(magnitude, layer) == pytest.approx(2.0 * tau, rel=1e-4)


@given(code=st.integers(1, 30), tau=st.integers(2, 31), sign=st.sampled_from([-1, 1]), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_expectation_stays(lab, code, tau, sign, seed):
    """|g| = c < tau becomes tau with probability p = c/tau: of n = 4096, n p within 5 sqrt(n p (1-p))."""
    n, step = 4096, 2.0**-8
    error = FixedTensor(torch.full((4, 8, 8, 16), sign * code * step), -8)
    error.values[0, 0, 0, 0] = 127 * step  # so that tau does not exceed the largest element
    left = primed(lab, tau * step).thin(error, lab.conv(), lab.tape(seed)).flatten()[1:]
    if code >= tau:
        assert torch.equal(left, error.values.flatten()[1:])
        return
    assert set(left.unique().tolist()) <= {0.0, sign * tau * step}
    p = code / tau
    assert abs(int((left != 0).sum()) - (n - 1) * p) <= 5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_pruned_errors_stay_on_their_grid(lab, rate):
    pruner = StochasticGradientPruning(rate, 2)
    for step in range(5):
        error = lab.codes(4, 8, 6, 6, seed=step)
        left = pruner.thin(error, lab.conv(), lab.tape(step))
        codes = left * 2.0**9
        assert torch.equal(codes, codes.round())
        assert float(left.abs().max()) <= float(error.values.abs().max())


@given(tau=st.floats(0, 100), exponent=st.integers(-20, 3))
def test_the_rounded_threshold_is_the_nearest_code(tau, exponent):
    rounded = on_grid(tau, exponent)
    assert (rounded / 2.0**exponent).is_integer()
    assert abs(rounded - tau) <= 2.0**exponent / 2
    assert on_grid(tau, None) == tau


def test_nothing_is_pruned_until_the_window_is_full(lab):
    pruner = StochasticGradientPruning(0.9, 3)
    pruned = []
    for step in range(5):
        error = lab.codes(4, 8, 6, 6, seed=step)
        pruned.append(not torch.equal(pruner.thin(error, lab.conv(), lab.tape(step)), error.values))
    assert pruned == [False, False, False, True, True]


def test_the_prediction_is_the_mean_of_the_last_thresholds(lab):
    """Window 2 with thresholds 0.2 and 0.4 predicts 0.3: elements below it become 0 or 0.3, the others stay."""
    pruner = StochasticGradientPruning(0.9, 2)
    pruner.load_state({"thresholds": {"conv": [0.2, 0.4]}})
    error = torch.linspace(-1, 1, 1152).view(4, 8, 6, 6)
    left = pruner.thin(FixedTensor(error), lab.conv(), lab.tape())
    small = error.abs() < 0.3
    assert torch.equal(left[~small], error[~small])
    assert left[small].abs().unique().tolist() == pytest.approx([0.0, 0.3])
    assert len(pruner.state()["thresholds"]["conv"]) == 2
    assert pruner.state()["thresholds"]["conv"][0] == 0.4


def test_an_error_map_without_an_error_has_no_threshold_and_no_density(lab):
    """0 / max(0, 1): a mini-batch that a ReLU masks whole stops nothing."""
    error = FixedTensor(torch.zeros(4, 8, 6, 6), -9)
    pruner = StochasticGradientPruning(0.9, 1)
    for step in range(3):
        left, channels, share = pruner.prune(error, None, lab.conv(activation="relu"), lab.tape(step))
        assert not left.any()
        assert (channels, share) == (None, 0.0)
    assert list(pruner.state()["thresholds"]["conv"]) == [0.0]
    assert density(torch.zeros(0)) == 1.0


def test_a_linear_layer_counts_as_dense(lab):
    """Its error is not pruned, and its zeros skip nothing."""
    error = lab.codes(4, 8, sparse=0.9)
    left, channels, share = primed(lab, 0.1).prune(error, None, lab.conv(kind="linear", size=1), lab.tape())
    assert torch.equal(left, error.values)
    assert (channels, share) == (None, 1.0)


def test_zeros_stay_zero(lab):
    """A mask's zeros get no gradient back: what pruning on the other side of the mask would have left."""
    error = lab.codes(4, 8, 6, 6, sparse=0.7)
    left = primed(lab, 0.1).thin(error, lab.conv(activation="relu"), lab.tape())
    assert not left[error.values == 0].any()


def test_pruning_does_not_depend_on_which_rows_were_gathered(lab):
    """The noise is keyed by the instance's position in the mini-batch."""
    error = lab.codes(6, 8, 4, 4)
    rows = torch.tensor([1, 4])
    whole = primed(lab, 0.1).thin(error, lab.conv(), lab.tape(3))
    part = FixedTensor(error.values[rows], error.exponent)
    gathered = primed(lab, 0.1).thin(part, lab.conv(), lab.tape(3, rows=rows))
    assert torch.equal(gathered, whole[rows])


def density_left(pruner):
    """Of normal numbers: P(|g| >= tau) + E[|g|; |g| < tau] / tau with tau = s sigma, which is (1 - rate) +
    sqrt(2/pi) (1 - e^(-s^2/2)) / s."""
    s = pruner.sigmas
    above = 2 * (1 - NormalDist().cdf(s))
    return above + math.sqrt(2 / math.pi) * (1 - math.exp(-s * s / 2)) / s


@pytest.mark.parametrize(("rate", "left"), [(0.7, 0.62), (0.8, 0.55), (0.9, 0.46), (0.95, 0.40), (0.99, 0.31)])
def test_the_density_left_of_normal_gradients(lab, rate, left):
    """n = 65536 elements: 5 sd <= 5 sqrt(.25 / 65536) = 0.0098."""
    pruner = StochasticGradientPruning(rate, 1)
    expected = density_left(pruner)
    assert expected == pytest.approx(left, abs=0.006)
    for step in range(2):
        g = torch.randn(8, 8, 32, 32, generator=torch.Generator().manual_seed(step))
        thinned = pruner.thin(FixedTensor(g), lab.conv(), lab.tape(step))
    assert density(thinned) == pytest.approx(expected, abs=0.0098)


def test_the_zeros_of_a_pool_do_not_count_where_the_conv_is_followed_by_pool_and_relu(lab):
    """A 2x2 max-pool hands one error of four on, the ReLU behind it half of those. Of the non-zero ones is left what
    is left of normal numbers: n = 8192 of them, 5 sd <= 5 sqrt(.25 / 8192) = 0.028. Were the zeros counted, tau would
    be an eighth as large and nearly all would be left."""
    pruner = StochasticGradientPruning(0.9, 1)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        g = torch.zeros(8, 8, 32, 32)
        g[:, :, ::2, ::4] = torch.randn(8, 8, 16, 8, generator=generator)
        thinned = pruner.thin(FixedTensor(g), lab.conv(), lab.tape(step))
    assert density(thinned) * 8 == pytest.approx(density_left(pruner), abs=0.028)


@pytest.mark.parametrize("sizes", [(32, 4), (4, 32)])
def test_the_size_of_the_mini_batch_does_not_move_the_threshold(lab, sizes):
    """In float32 the error of n instances holds 1/n. Where two mini-batches have 32 and 4, what is left of the second
    is what is left of normal numbers: at least n = 4 x 8 x 32 x 32 = 32768, 5 sd <= 5 sqrt(.25 / 32768) = 0.014."""
    pruner = StochasticGradientPruning(0.9, 1)
    for step, n in enumerate(sizes):
        g = torch.randn(n, 8, 32, 32, generator=torch.Generator().manual_seed(step)) / n
        thinned = pruner.thin(FixedTensor(g), lab.conv(), lab.tape(step, averaged=True))
    assert density(thinned) == pytest.approx(density_left(pruner), abs=0.014)


def test_the_size_of_the_mini_batch_is_that_going_back(lab):
    """Brevitas' layers go back with the whole batch, zero where an instance does not take part: 2 of 8 do."""
    pruner, tape = StochasticGradientPruning(0.9, 1), lab.tape(averaged=True)
    tape.narrowed = torch.tensor([1, 4])
    error = torch.zeros(8, 8, 4, 4)
    error[tape.narrowed] = 0.5
    pruner.thin(FixedTensor(error), lab.conv(), tape)
    sigma = math.sqrt(math.pi / 2) * 0.5
    assert list(pruner.thresholds["conv"]) == pytest.approx([pruner.sigmas * sigma * 2])
