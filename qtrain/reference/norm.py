"""Batch normalization: exact sums, then a few integers per channel, worked out in Python's unbounded ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qtrain.reference.numbers import Stored, Wide, value
from qtrain.reference.points import smallest_exponent

STATISTIC_BITS = 24
LARGEST_EPSILON = 1 << 50


@dataclass(frozen=True)
class Channel:
    """Constants of one channel: mean m8 / 2^8, 1/sqrt(v) = root 2^lift, both in units of the input's step."""

    m8: int
    v16: int
    root: int
    lift: int


def half_up(x: int, shift: int) -> int:
    """x / 2^shift, halves towards plus infinity; exact to the left."""
    return (x + (1 << (shift - 1))) >> shift if shift > 0 else x << -shift


def divided(x: int, divisor: int) -> int:
    """x / divisor, halves towards plus infinity."""
    return (2 * x + divisor) // (2 * divisor)


def narrowed(x: int, bits: int) -> tuple[int, int]:
    """x as mantissa x 2^exponent with |mantissa| <= 2^bits."""
    exponent = max(abs(x).bit_length() - bits, 0)
    return half_up(x, exponent), exponent


def inverse_root(variance: int) -> tuple[int, int]:
    """1 / sqrt(variance) as (16-bit root, exponent)."""
    shift = 32 - variance.bit_length()
    shift -= shift % 2
    scaled = variance << shift if shift >= 0 else variance >> -shift
    return math.isqrt((1 << 62) // scaled), shift // 2 - 31


def per_channel(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n, C, ...] -> [C, elements]."""
    return np.moveaxis(codes, 1, 0).reshape(codes.shape[1], -1)


def statistics(a: Stored, epsilon: float) -> list[Channel]:
    """Each channel's constants from the batch in `a`."""
    rows = per_channel(a.codes)
    n = rows.shape[1]
    scaled = Fraction(epsilon) * 2**16 / value(1, 2 * a.exponent)
    eps = min(max(1, round(scaled)), LARGEST_EPSILON)
    found = []
    for row in rows:
        m8 = divided(int(row.sum()) << 8, n)
        v16 = max((divided(int((row * row).sum()) << 8, n) << 8) - m8 * m8, 0)
        root, lift = inverse_root(v16 + eps)
        found.append(Channel(m8, v16, root, lift + 8))
    return found


def blended(old: list[Fraction], batch: list[Fraction], share: float) -> list[Fraction]:
    """Running statistics after a step: 24-bit codes on one grid for all channels."""
    amax = max(abs(x) for x in (*old, *batch))
    grid = smallest_exponent(2 ** (STATISTIC_BITS - 1) - 1, amax)
    fine, weight = value(1, grid - 16), round(share * 2**16)

    def nearest(x: Fraction) -> int:
        return math.floor(x / fine + Fraction(1, 2))

    codes = [half_up(nearest(o) * (2**16 - weight) + nearest(b) * weight, 32) for o, b in zip(old, batch, strict=True)]
    return [value(code, grid) for code in codes]


def _column(values: list[int], ndim: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64).reshape(1, -1, *([1] * (ndim - 2)))


def forward(a: Stored, channels: list[Channel], scale: Stored, shift: Stored) -> Wide:
    """y = (A a + B) 2^grid of every element, one grid per channel."""
    gains, offsets, grids = [], [], []
    for channel, gamma, beta in zip(channels, scale.codes.tolist(), shift.codes.tolist(), strict=True):
        product = gamma * channel.root
        exponent = scale.exponent + channel.lift
        offset = half_up(beta, min(max(exponent - 8 - shift.exponent, -46), 62)) - channel.m8 * product
        down = max(abs(product).bit_length() - 15, abs(offset).bit_length() - 31, 0)
        gains.append(half_up(product, down))
        offsets.append(half_up(offset, down + 8))
        grids.append(exponent + down)
    ndim = a.codes.ndim
    return Wide(_column(gains, ndim) * a.codes + _column(offsets, ndim), _column(grids, ndim))


@dataclass(frozen=True)
class Sums:
    """Of one channel's errors g: T1 = sum g, centred = 2^8 sum g (a - m)."""

    total: int
    centred: int


def error_sums(error: NDArray[np.int64], a: Stored, channels: list[Channel]) -> list[Sums]:
    """The two sums of every channel."""
    found = []
    for g, row, channel in zip(per_channel(error), per_channel(a.codes), channels, strict=True):
        total = int(g.sum())
        found.append(Sums(total, (int((g * row).sum()) << 8) - channel.m8 * total))
    return found


def scale_gradient(sums: list[Sums], channels: list[Channel], exponent: int) -> Wide:
    """sum g (a - m) / sqrt(v), one grid per channel."""
    codes, grids = [], []
    for s, channel in zip(sums, channels, strict=True):
        mantissa, lift = narrowed(s.centred, 30)
        codes.append(mantissa * channel.root)
        grids.append(lift - 8 + channel.lift + exponent)
    return Wide(np.array(codes, dtype=np.int64), np.array(grids, dtype=np.int64))


def input_error(
    error: Stored, masked: NDArray[np.int64], a: Stored, channels: list[Channel], sums: list[Sums], scale: Stored
) -> Wide:
    """dx = (P g + Q a + R) 2^grid of every element."""
    n = per_channel(a.codes).shape[1]
    found = [
        _constants(channel, s, gamma, scale.exponent, n)
        for channel, s, gamma in zip(channels, sums, scale.codes.tolist(), strict=True)
    ]
    ndim = a.codes.ndim
    p, q, r, grid = (_column(list(values), ndim) for values in zip(*found, strict=True))
    return Wide(p * masked + q * a.codes + r, grid + error.exponent - a.exponent)


def _constants(channel: Channel, s: Sums, gamma: int, scale_exponent: int, n: int) -> tuple[int, int, int, int]:
    gain, lift = narrowed(gamma * channel.root, 15)
    gain_exponent = lift + scale_exponent + channel.lift
    mantissa, centred_lift = narrowed(s.centred, 30)
    square = half_up(channel.root * channel.root, 16)
    slope, slope_lift = narrowed(divided(mantissa * square, n), 15)
    slope_exponent = slope_lift + centred_lift + 8 + 2 * channel.lift
    q = -gain * slope
    common = max(slope_exponent - 8, -16)
    moved = half_up(channel.m8 * slope, common - (slope_exponent - 8))
    mean_error = half_up(divided(s.total << 16, n), common + 16)
    r = gain * (moved - mean_error)
    grid = max(
        abs(gain).bit_length() - 14,
        abs(q).bit_length() - 15 + slope_exponent if q else -64,
        abs(r).bit_length() - 22 + common if r else -64,
        -8,
    )
    return (
        half_up(gain, grid),
        half_up(q, min(grid - slope_exponent, 62)),
        half_up(r, min(grid - common, 62)),
        grid + gain_exponent,
    )
