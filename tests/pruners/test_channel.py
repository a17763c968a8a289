"""Channel importance (Wu et al. 2020, eq. 11) by hand and against brute force; who is kept."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwmodel.schedule import kept_channels
from qtrain.formats.fixed import FixedTensor
from qtrain.pruners.channel import ChannelPruning


def brute_force(error, weight, gamma_weight, gamma_error):
    """s_j in plain Python, each norm over its mean."""
    n_channels = len(weight)
    weights = [sum(abs(v) for v in weight[j].flatten().tolist()) for j in range(n_channels)]
    errors = [sum(abs(v) for row in error for v in row[j].flatten().tolist()) for j in range(n_channels)]
    scale = [sum(x) / n_channels or 1.0 for x in (weights, errors)]
    return [gamma_weight * w / scale[0] + gamma_error * e / scale[1] for w, e in zip(weights, errors, strict=True)]


@given(
    n=st.integers(0, 3),
    channels=st.integers(1, 7),
    gammas=st.sampled_from([(0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.3, 2.0)]),
    seed=st.integers(0, 99),
)
def test_importance_equals_brute_force(n, channels, gammas, seed):
    generator = torch.Generator().manual_seed(seed)
    error = torch.randint(-127, 128, (n, channels, 2, 3), generator=generator).float() * 2.0**-9
    weight = torch.randint(-127, 128, (channels, 2, 3, 3), generator=generator).float() * 2.0**-7
    ours = ChannelPruning(0.5, *gammas).importance(error, weight)
    assert ours.tolist() == pytest.approx(brute_force(error, weight, *gammas), rel=1e-9, abs=1e-12)


def test_importance_by_hand():
    """Two instances, one pixel: sums |1| + |-3| = 4, |2| + |0| = 2, mean 3: 4/3 and 2/3. Weights 1 and 3, mean 2: 1/2
    and 3/2. gamma 1, 1: 4/3 + 1/2 = 11/6 and 2/3 + 3/2 = 13/6."""
    error = torch.tensor([[1.0, 2.0], [-3.0, 0.0]]).view(2, 2, 1, 1)
    weight = torch.tensor([1.0, -3.0]).view(2, 1, 1, 1)
    assert ChannelPruning(0.5, 1.0, 1.0).importance(error, weight).tolist() == pytest.approx([11 / 6, 13 / 6])


def test_the_scale_of_the_error_does_not_matter():
    """A mean loss makes errors 10^-4 of the weights; the choice is the same."""
    generator = torch.Generator().manual_seed(0)
    error, weight = torch.randn(3, 6, 2, 2, generator=generator), torch.randn(6, 2, 3, 3, generator=generator)
    pruner = ChannelPruning(0.5, 1.0, 1.0)
    big, small = pruner.importance(error, weight), pruner.importance(error * 1e-4, weight)
    assert torch.allclose(big, small, rtol=1e-5)


def errors_of(sums):
    """An error map of one instance and one pixel with these |sums|."""
    return torch.tensor(sums, dtype=torch.float32).view(1, -1, 1, 1)


def choose(lab, sums, keep, **shape):
    layer = lab.conv(channels=len(sums), **shape)
    pruner = ChannelPruning(keep)
    weight = torch.ones(len(sums), 1, 3, 3)
    return pruner.prune(FixedTensor(errors_of(sums)), weight, layer, lab.tape()).channels.tolist()


def test_the_largest_are_kept_and_ties_go_to_the_first(lab):
    assert choose(lab, [1, 5, 3, 4], 0.5) == [1, 3]
    assert choose(lab, [2, 7, 2, 2], 0.5) == [0, 1]
    assert choose(lab, [1, 5, 3, 4], 0.01) == [1]  # at least one


def test_a_grouped_layer_keeps_equally_many_in_every_group(lab):
    """Two groups of 3, keep 0.5: round(1.5) = 2 of each, although group 0 holds the three largest."""
    assert choose(lab, [9, 8, 7, 1, 3, 2], 0.5, groups=2) == [0, 1, 4, 5]
    assert choose(lab, [9, 8, 7, 1, 3, 2], 0.1, groups=2) == [0, 4]


def test_a_depthwise_layer_is_one_group(lab):
    assert choose(lab, [9, 8, 7, 1], 0.5, groups=4, inputs=4) == [0, 1]


@given(
    keep=st.floats(0.01, 1.0),
    groups=st.sampled_from([1, 2, 4]),
    per_group=st.integers(1, 6),
    inputs=st.sampled_from([4, 8]),
)
def test_as_many_are_kept_as_the_schedule_states(lab, keep, groups, per_group, inputs):
    layer = lab.conv(channels=groups * per_group, inputs=inputs, groups=groups)
    error = lab.codes(2, groups * per_group, 4, 4)
    channels = ChannelPruning(keep).prune(error, torch.ones(groups * per_group, 1), layer, lab.tape()).channels
    n = layer.out_channels if channels is None else len(channels)
    assert n == kept_channels(layer, keep)
    if channels is not None and groups != inputs:
        assert torch.bincount(channels // per_group, minlength=groups).tolist() == [n // groups] * groups


def test_channels_never_kept_are_counted(lab):
    """Four channels, two kept a time: {0, 1}, then {1, 2}: channel 3 of four was never kept."""
    pruner, layer, weight = ChannelPruning(0.5), lab.conv(channels=4), torch.ones(4, 1, 3, 3)
    for sums in ([4, 3, 1, 0], [1, 4, 3, 0]):
        pruner.prune(FixedTensor(errors_of(sums)), weight, layer, lab.tape())
    assert pruner.never_kept() == {"conv": 0.25}
