"""Fixed point: its codes, its exponent rule and its roundings."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain.formats.fixed import MIN_EXPONENT, FixedPoint
from qtrain.formats.noise import Stream
from qtrain.formats.rounding import ROUNDINGS, round_to_integer

STREAM = Stream(seed=3, step=5, stream_id=7)
formats = st.builds(FixedPoint, bits=st.integers(2, 16), signed=st.booleans())
exponents = st.integers(-40, 20)
finite = st.floats(-1e6, 1e6, width=32)


def all_codes(fmt: FixedPoint) -> torch.Tensor:
    return torch.arange(fmt.min_code, fmt.max_code + 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("fmt", "rounding"),
    list(itertools.product([FixedPoint(8), FixedPoint(8, False), FixedPoint(2)], ROUNDINGS)),
)
def test_every_code_is_itself_under_every_rounding(fmt: FixedPoint, rounding: str) -> None:
    for exponent in (-30, -7, 0, 11):
        values = all_codes(fmt) * 2.0**exponent
        for dtype in (torch.float32, torch.float64):
            x = values.to(dtype)
            for step in range(20):
                assert torch.equal(fmt.quantize(x, exponent, rounding, Stream(0, step, 1)), x)


@given(fmt=formats, exponent=exponents, rounding=st.sampled_from(ROUNDINGS), seed=st.integers(0, 2**31))
def test_at_most_two_to_the_bits_levels_and_none_outside_the_range(
    fmt: FixedPoint, exponent: int, rounding: str, seed: int
) -> None:
    x = torch.linspace(-3, 3, 4001) * fmt.max_code * 2.0**exponent
    codes = fmt.codes(x, exponent, rounding, Stream(seed, 0, 0))
    levels = codes.unique()
    assert len(levels) <= 2**fmt.bits
    assert levels[0] == fmt.min_code  # both ends are reached: nothing wraps, nothing is left unused
    assert levels[-1] == fmt.max_code
    assert torch.equal(levels, levels.round())


@given(fmt=formats, exponent=exponents, a=finite, b=finite, rounding=st.sampled_from(ROUNDINGS[:4]))
def test_rounding_keeps_order(fmt: FixedPoint, exponent: int, a: float, b: float, rounding: str) -> None:
    low, high = fmt.quantize(torch.tensor([min(a, b), max(a, b)]), exponent, rounding)
    assert low <= high


@given(fmt=formats, exponent=exponents, a=finite, b=finite)
def test_stochastic_rounding_keeps_order_under_one_noise(fmt: FixedPoint, exponent: int, a: float, b: float) -> None:
    """The same element of the same stream: a larger number never rounds to a smaller code."""
    low = fmt.quantize(torch.tensor([min(a, b)]), exponent, "stochastic", STREAM)
    high = fmt.quantize(torch.tensor([max(a, b)]), exponent, "stochastic", STREAM)
    assert low <= high


@given(fmt=formats, amax=st.floats(2.0**-80, 1e30, allow_subnormal=False))
def test_the_exponent_is_the_smallest_that_holds_amax(fmt: FixedPoint, amax: float) -> None:
    e = fmt.exponent_for(amax)
    assert fmt.max_code * Fraction(2) ** e >= Fraction(amax) > fmt.max_code * Fraction(2) ** (e - 1)


def test_an_amax_of_one_does_not_saturate() -> None:
    """Brevitas' rule divides by 128 and loses a code here: 127 * 2^-6 holds 1.0, 127 * 2^-7 does not."""
    fmt = FixedPoint(8)
    assert fmt.exponent_for(1.0) == -6
    assert float(fmt.quantize(torch.ones(1), -6)) == 1.0


@pytest.mark.parametrize("amax", [math.inf, math.nan])
def test_no_exponent_for_numbers_that_are_not_finite(amax: float) -> None:
    with pytest.raises(ValueError, match="no exponent"):
        FixedPoint(8).exponent_for(amax)


def test_zero_and_the_tiniest_numbers_get_the_least_exponent() -> None:
    assert FixedPoint(8).exponent_for(0.0) == FixedPoint(8).exponent_for(2.0**-126) == MIN_EXPONENT


@pytest.mark.parametrize(
    ("rounding", "expected"),
    [
        ("nearest-even", [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]),
        ("nearest-away", [-3, -2, -2, -1, -1, 0, 1, 1, 2, 2, 3]),
        ("floor", [-3, -2, -2, -2, -1, 0, 0, 1, 1, 2, 2]),
        ("toward-zero", [-2, -2, -1, -1, 0, 0, 0, 1, 1, 2, 2]),
    ],
)
def test_halves(rounding: str, expected: list[int]) -> None:
    """-2.5, -2, -1.5, -1.25, -0.5, 0 and mirrored: half to even is not half away from zero."""
    x = torch.tensor([-2.5, -2, -1.5, -1.25, -0.5, 0, 0.5, 1.25, 1.5, 2, 2.5])
    assert round_to_integer(x, rounding).tolist() == expected


@given(fraction=st.floats(0.01, 0.99), whole=st.integers(-100, 100), stream_id=st.integers(0, 2**32 - 1))
def test_stochastic_rounding_is_unbiased_within_its_binomial_bound(fraction: float, whole: int, stream_id: int) -> None:
    """n draws of a Bernoulli(p): the count of round-ups has standard deviation sqrt(n p (1 - p)); 6 of them is
    exceeded once in 5e8."""
    n = 20_000
    x = torch.full((n,), whole + fraction, dtype=torch.float64)
    rounded = round_to_integer(x.clone(), "stochastic", Stream(0, 1, stream_id))
    low = math.floor(whole + fraction)
    p = whole + fraction - low
    assert set(rounded.tolist()) <= {low, low + 1}
    ups = float((rounded - low).sum())
    assert abs(ups - n * p) <= 6 * math.sqrt(n * p * (1 - p)) + 1e-6


@given(values=st.lists(finite, min_size=1, max_size=40), step=st.integers(0, 2**31))
def test_stochastic_rounding_is_symmetric_under_sign(values: list[float], step: int) -> None:
    """NITI's -5/4 averaged -2.75 on a newer torch; here the mirrored number rounds to the mirrored code."""
    stream = Stream(1, step, 2)
    x = torch.tensor(values)
    assert torch.equal(round_to_integer(-x, "stochastic", stream), -round_to_integer(x.clone(), "stochastic", stream))


@given(seed=st.integers(0, 2**31))
def test_float32_and_float64_carriers_round_alike(seed: int) -> None:
    """Small negative numbers too: x - floor(x) would be rounded in float32 there."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(4096, generator=g) * torch.tensor([2.0]) ** torch.randint(-30, 6, (4096,), generator=g)
    for rounding in ROUNDINGS:
        single = round_to_integer(x.clone(), rounding, STREAM)
        assert torch.equal(single.double(), round_to_integer(x.double(), rounding, STREAM))


def test_an_unknown_rounding_or_a_missing_stream_is_named() -> None:
    with pytest.raises(ValueError, match="'nearest'"):
        round_to_integer(torch.zeros(1), "nearest")
    with pytest.raises(ValueError, match="stream"):
        round_to_integer(torch.zeros(1), "stochastic")
