"""Tiled stochastic rounding gives the bits of the rule written out in formats.rounding."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain.formats import tiled
from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream


@given(
    st.sampled_from([(1,), (50,), (7, 9), (3, 4, 5, 6), (2, 3, 8, 9), (5, 1, 1, 1), (1, 40, 5, 5)]), st.booleans(),
    st.booleans(), st.sampled_from([torch.float32, torch.float64]), st.sampled_from([1, 7, 64, 1 << 17]),
    st.integers(0, 2**31),
)  # fmt: skip
def test_same_bits_whatever_the_tile(shape, last, gathered, dtype, tile, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=dtype)
    if last and len(shape) == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    rows = torch.randperm(100, generator=generator)[: shape[0]] if gathered else None
    fmt, stream, exponent = FixedPoint(8), Stream(1, 2, seed, rows), -6
    expected = fmt.codes(x, exponent, "stochastic", stream) * math.ldexp(1.0, exponent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled, "TILE", tile)
        got = fmt.quantize(x, exponent, "stochastic", stream)
    assert torch.equal(got, expected)
    assert got.stride() == x.stride()


def test_positions_beyond_32_bits_wrap_as_words():
    x = torch.full((2, 1000), 0.3)
    far = torch.tensor([2**32 // 1000, 2**40])  # their first index is beyond 2^32
    stream = Stream(1, 2, 3, far)
    expected = FixedPoint(8).codes(x, -2, "stochastic", stream) * 0.25
    assert torch.equal(FixedPoint(8).quantize(x, -2, "stochastic", stream), expected)


@pytest.mark.parametrize("shape", [(9, 16, 32, 32), (7, 20, 33, 35), (300_001,)])
def test_same_bits_at_any_thread_count(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))  # several tiles, each beyond PyTorch's grain
    layouts = [x, x.contiguous(memory_format=torch.channels_last)] if len(shape) == 4 else [x]
    fmt, before, found = FixedPoint(8), torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append([fmt.quantize_seen(y, -5, "stochastic", Stream(1, 2, 3), y) for y in layouts])
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) and m == n for (a, m), (b, n) in zip(*found, strict=True))
