"""Integers with a power-of-two scale, and how they are rounded onto a coarser one."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[Any]
"""int64, or Python's unbounded integers in an object array where 62 bits do not do."""
NOISE_BITS = 24
LARGEST_SHIFT = 62


@dataclass(frozen=True)
class Stored:
    """A tensor in memory: codes x 2^exponent, of weights perhaps an exponent a channel, [K, 1, ...]."""

    codes: NDArray[np.int64]
    exponent: Any


@dataclass(frozen=True)
class Wide:
    """Exact numbers before rounding: codes x 2^exponent, the exponent one integer or an array that broadcasts."""

    codes: Integers
    exponent: int | NDArray[np.int64]


def _split(magnitude: Integers, shift: Any) -> tuple[Integers, Integers]:
    """Quotient and remainder of a magnitude by 2^shift."""
    whole = magnitude >> shift
    return whole, magnitude - (whole << shift)


def nearest_even(codes: Integers, shift: Any) -> Integers:
    """codes / 2^shift for shift >= 0, halves to the even neighbour."""
    magnitude = abs(codes)
    whole, rest = _split(magnitude, shift)
    twice = rest << 1
    unit = (whole * 0 + 1) << shift
    up = (twice > unit) | ((twice == unit) & ((whole & 1) == 1))
    return np.where(codes < 0, -(whole + up), whole + up)


def nearest_away(codes: Integers, shift: Any) -> Integers:
    """codes / 2^shift, halves away from zero."""
    magnitude = abs(codes)
    whole, rest = _split(magnitude, shift)
    up = (rest << 1) >= ((whole * 0 + 1) << shift)
    up = up & (rest > 0)
    return np.where(codes < 0, -(whole + up), whole + up)


def toward_zero(codes: Integers, shift: Any) -> Integers:
    """codes / 2^shift without its fraction."""
    whole, _ = _split(abs(codes), shift)
    return np.where(codes < 0, -whole, whole)


def floor(codes: Integers, shift: Any) -> Integers:
    """The largest integer not above codes / 2^shift."""
    return codes >> shift


def stochastic(codes: Integers, shift: Any, noise: Integers) -> Integers:
    """Magnitude rounded up where `noise` (0 .. 2^24 - 1) is below its fraction in units of 2^-24, rounded up."""
    magnitude = abs(codes)
    whole, rest = _split(magnitude, shift)
    beyond = np.maximum(shift - NOISE_BITS, 0)  # fraction bits the noise does not have
    missing = np.maximum(NOISE_BITS - shift, 0)
    fraction = ((rest << missing) + ((whole * 0 + 1) << beyond) - 1) >> beyond
    up = noise < fraction
    return np.where(codes < 0, -(whole + up), whole + up)


DETERMINISTIC = {
    "nearest-even": nearest_even,
    "nearest-away": nearest_away,
    "toward-zero": toward_zero,
    "floor": floor,
}


def to_grid(
    x: Wide, exponent: int | NDArray[np.int64], lowest: int, highest: int, rounding: str, noise: Integers | None
) -> NDArray[np.int64]:
    """Codes of `x` in units of 2^exponent, saturated to lowest .. highest."""
    shift: Any = np.asarray(exponent - x.exponent)
    codes = x.codes
    if codes.dtype == object:
        shift = int(shift)
        left, right = max(-shift, 0), max(shift, 0)
    else:
        shift = np.clip(shift, -LARGEST_SHIFT, LARGEST_SHIFT + NOISE_BITS)
        # a code beyond the range stays beyond it however far it moves left
        bound = np.int64(highest + 1)
        codes = np.where(shift < 0, np.clip(codes, -bound, bound), codes)
        left = np.minimum(np.maximum(-shift, 0), 40)
        right = np.maximum(shift, 0)
        if np.any(right > LARGEST_SHIFT):  # |codes| < 2^61: what lies that far right is less than half a step
            codes, right = codes.astype(object), right.astype(object)
    codes = codes << left
    if rounding == "stochastic":
        assert noise is not None
        rounded = stochastic(codes, right, noise)
    else:
        rounded = DETERMINISTIC[rounding](codes, right)
    return np.clip(rounded, lowest, highest).astype(np.int64)


def value(code: int, exponent: int) -> Fraction:
    """code x 2^exponent."""
    return Fraction(code) * (Fraction(2) ** exponent)


def along_channels(exponent: Any, sums: Integers) -> Any:
    """One exponent as it is; one a channel so that they broadcast against sums [n, C, ...]."""
    return exponent if np.ndim(exponent) == 0 else np.reshape(exponent, (1, -1, *[1] * (sums.ndim - 2)))


def align(a: Wide, b: Wide) -> tuple[Integers, Integers, int]:
    """Both on the finer of their grids (scalar exponents), wide enough for their sum."""
    exponent = int(min(a.exponent, b.exponent))
    codes = []
    for x in (a, b):
        shift = int(x.exponent) - exponent
        top = int(abs(x.codes).max(initial=0)).bit_length() + shift
        if top == shift:  # nothing but zeros
            codes.append(np.zeros_like(x.codes))
        else:
            codes.append((x.codes.astype(object) if top > 60 else x.codes) << shift)
    return codes[0], codes[1], exponent


def add(a: Wide, b: Wide) -> Wide:
    """The exact sum."""
    left, right, exponent = align(a, b)
    return Wide(left + right, exponent)
