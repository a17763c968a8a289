"""The noise against its written definition, and against what noise must be."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain.formats.noise import Stream, mix, noise

words = st.integers(0, 2**32 - 1)


def written(seed: int, step: int, stream_id: int, index: int) -> int:
    """The definition in ARITHMETIC.md, on Python integers."""

    def lowbias32(x: int) -> int:
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    key = lowbias32(stream_id ^ lowbias32(step ^ lowbias32(seed)))
    return lowbias32((index ^ key) % 2**32) >> 8


@given(seed=words, step=words, stream_id=words, shape=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_every_element_is_the_written_hash_of_its_place(seed: int, step: int, stream_id: int, shape: list[int]) -> None:
    like = torch.zeros(shape)
    got = noise(like.shape, Stream(seed, step, stream_id), like).flatten().tolist()
    assert got == [written(seed, step, stream_id, i) for i in range(math.prod(shape))]


@given(seed=words, n=st.integers(1, 6), channels=st.integers(1, 5), size=st.integers(1, 5))
def test_memory_format_does_not_change_the_bits(seed: int, n: int, channels: int, size: int) -> None:
    like = torch.zeros(n, channels, size, size)
    last = like.contiguous(memory_format=torch.channels_last)
    stream = Stream(seed, 1, 2)
    assert torch.equal(noise(like.shape, stream, like), noise(last.shape, stream, last))


@given(rows=st.lists(st.integers(0, 63), min_size=1, max_size=20, unique=True), channels=st.integers(1, 4))
def test_gathered_rows_keep_the_bits_they_have_in_the_whole(rows: list[int], channels: int) -> None:
    whole = torch.zeros(64, channels, 3)
    index = torch.tensor(rows)
    part = noise(torch.Size((len(rows), channels, 3)), Stream(0, 0, 0, index), whole)
    assert torch.equal(part, noise(whole.shape, Stream(0, 0, 0), whole)[index])


def test_indices_wrap_at_32_bits_without_an_error() -> None:
    """Row 2^20 of 2^13 elements starts at 2^33 = 0 modulo 2^32."""
    like = torch.zeros(1, 2**13)
    far = noise(like.shape, Stream(0, 0, 0, torch.tensor([2**20])), like)
    assert torch.equal(far, noise(like.shape, Stream(0, 0, 0), like))


@given(seed=words, step=words, stream_id=words)
def test_streams_differ_by_seed_step_and_stream(seed: int, step: int, stream_id: int) -> None:
    """Two independent 24-bit words agree once in 2^24: of 1000, more than 5 equal ones would be no accident."""
    like = torch.zeros(1000)
    base = noise(like.shape, Stream(seed, step, stream_id), like)
    for other in (
        Stream(seed ^ 1, step, stream_id), Stream(seed, step ^ 1, stream_id), Stream(seed, step, stream_id ^ 1)
    ):  # fmt: skip
        assert int((base == noise(like.shape, other, like)).sum()) <= 5


def test_it_is_uniform_and_neighbours_are_independent() -> None:
    """Chi-square over 256 bins of n = 2^18 draws has mean 255, deviation sqrt(510); correlation deviates 1/sqrt(n)."""
    n = 2**18
    like = torch.zeros(n, dtype=torch.float64)
    for step in range(4):
        u = noise(like.shape, Stream(0, step, 9), like)
        assert float(u.min()) >= 0
        assert float(u.max()) < 2**24
        counts = torch.bincount((u / 2**16).long(), minlength=256).double()
        chi_square = float(((counts - n / 256) ** 2 / (n / 256)).sum())
        assert abs(chi_square - 255) < 6 * math.sqrt(510)
        following = noise(like.shape, Stream(0, step + 1, 9), like)
        for other in (u.roll(1), following):  # the next element, and the same element one step later
            correlation = float(torch.corrcoef(torch.stack([u, other]))[0, 1])
            assert abs(correlation) < 6 / math.sqrt(n)


def test_the_global_generator_has_no_part_in_it() -> None:
    like = torch.zeros(100)
    torch.manual_seed(0)
    first = noise(like.shape, Stream(1, 2, 3), like)
    torch.manual_seed(1)
    assert torch.equal(first, noise(like.shape, Stream(1, 2, 3), like))


@given(a=words, b=words)
def test_mixing_loses_nothing(a: int, b: int) -> None:
    """lowbias32 is a bijection of 32-bit words."""
    assert (mix(a) == mix(b)) == (a == b)
