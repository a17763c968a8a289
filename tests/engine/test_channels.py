"""Passes over error maps channel by channel, against PyTorch's operations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain import engine
from qtrain.engine import channels

pytestmark = pytest.mark.skipif(engine.compiler() is None, reason="no C++ compiler")
SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 5, 3, 4), (3, 16, 1, 1), (1, 7, 1, 6), (40, 33, 6, 5)])


def codes(shape, last, dtype, seed):
    x = torch.randint(-127, 128, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if last else x


@given(SHAPES, st.booleans(), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99))
def test_gathered_channels_are_the_indexed_ones_in_the_same_layout(shape, last, dtype, seed):
    x = codes(shape, last, dtype, seed)
    n_kept = 1 + seed % shape[1]
    kept = torch.randperm(shape[1], generator=torch.Generator().manual_seed(seed))[:n_kept].sort().values
    with engine.using("compiled"):
        got = channels.gather(x, kept)
    assert torch.equal(got, x[:, kept])
    assert got.is_contiguous() or (last and got.is_contiguous(memory_format=torch.channels_last))


@given(SHAPES, st.booleans(), st.integers(0, 99))
def test_squares_are_summed_by_instance_and_the_largest_channel_is_of_all(shape, last, seed):
    """Codes of at most 127 over at most 30 pixels: float32 holds their squares' sums, 30 * 127^2 < 2^24."""
    x = codes(shape, last, torch.float32, seed)
    with engine.using("compiled"):
        sums, largest = channels.squares(x * 2.0**-9, 2.0**9)
    expected = x.double().square().sum((2, 3))
    assert torch.equal(sums, expected)
    assert largest == float(expected.sum(0).max())
