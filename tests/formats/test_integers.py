"""Integer arithmetic on tensors against Python's unbounded integers."""

import math
from fractions import Fraction

import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain.formats.integers import (
    bit_length,
    divide_round,
    inverse_sqrt,
    isqrt,
    normalize,
    power_of_two,
    shift_round,
)

signed = st.integers(-(2**61), 2**61)


def only(x: torch.Tensor) -> int:
    return int(x.reshape(()))


def half_up(x: Fraction) -> int:
    """Nearest integer, halves towards plus infinity."""
    return math.floor(x + Fraction(1, 2))


@given(x=st.integers(-(2**60), 2**60), shift=st.integers(0, 62), kind=st.sampled_from([int, torch.tensor]))
def test_right_shifts_round_halves_up(x: int, shift: int, kind) -> None:
    assert only(shift_round(torch.tensor([x]), kind(shift))) == half_up(Fraction(x, 2**shift))


@given(x=st.integers(-(2**30), 2**30), shift=st.integers(0, 31), kind=st.sampled_from([int, torch.tensor]))
def test_negative_shifts_go_left_exactly(x: int, shift: int, kind) -> None:
    assert only(shift_round(torch.tensor([x]), kind(-shift))) == x * 2**shift


@given(x=st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3), shifts=st.lists(
    st.integers(-20, 40), min_size=3, max_size=3))  # fmt: skip
def test_a_tensor_of_shifts_shifts_each_element_by_its_own(x: list[int], shifts: list[int]) -> None:
    got = shift_round(torch.tensor(x), torch.tensor(shifts)).tolist()
    assert got == [half_up(Fraction(a) / Fraction(2) ** s) for a, s in zip(x, shifts, strict=True)]


@given(x=st.integers(-(2**60), 2**60), divisor=st.integers(1, 2**40))
def test_division_rounds_halves_up(x: int, divisor: int) -> None:
    assert only(divide_round(torch.tensor([x]), divisor)) == half_up(Fraction(x, divisor))


@given(x=signed)
def test_bit_length_is_pythons(x: int) -> None:
    assert only(bit_length(torch.tensor([x]))) == x.bit_length()


@given(power=st.integers(0, 61), off=st.integers(-2, 2))
def test_bit_length_at_the_powers_of_two(power: int, off: int) -> None:
    x = 2**power + off
    assert only(bit_length(torch.tensor([x]))) == x.bit_length()


@given(root=st.integers(0, 2**26 - 1), off=st.integers(-1, 1))
def test_isqrt_at_and_beside_squares(root: int, off: int) -> None:
    x = max(root * root + off, 0)
    assert only(isqrt(torch.tensor([x]))) == math.isqrt(x)


@given(x=signed, bits=st.integers(2, 40))
def test_normalize_keeps_narrow_numbers_and_halves_a_unit_at_most(x: int, bits: int) -> None:
    mantissa, exponent = (only(t) for t in normalize(torch.tensor([x]), bits))
    assert abs(mantissa) <= 2**bits
    assert abs(mantissa * 2**exponent - x) <= 2**exponent // 2
    if x.bit_length() <= bits:
        assert (mantissa, exponent) == (x, 0)


@given(variance=st.integers(1, 2**52))
def test_the_inverse_root_has_sixteen_bits_and_is_right_to_them(variance: int) -> None:
    """Two floors lose less than one unit of r and the argument's bits beyond 2^30: together under 2 units."""
    root, exponent = (only(t) for t in inverse_sqrt(torch.tensor([variance])))
    assert 2**15 <= root <= 2**16
    exact = 2.0**-exponent / math.sqrt(variance)
    assert -1e-3 <= exact - root < 2


@given(exponent=st.integers(-1022, 1023))
def test_powers_of_two_are_exact(exponent: int) -> None:
    assert only(torch.tensor(math.frexp(float(power_of_two(torch.tensor([exponent]))))[1])) == exponent + 1
    assert math.frexp(float(power_of_two(torch.tensor([exponent]))))[0] == 0.5
