"""What every normalization computes alike: a few integers per cell, worked out in Python's unbounded ones.

A cell is what shares mean and deviation's constants: a channel, or one channel of one instance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qtrain.reference.numbers import Stored, Wide, value
from qtrain.reference.points import smallest_exponent

LARGEST_EPSILON = 1 << 50
Codes = NDArray[np.int64]


@dataclass(frozen=True)
class Cell:
    """Constants of one cell of n elements: mean m8 / 2^8, 1/deviation = root 2^lift, in units of the input's step.

    `own`: of the batch's statistics, through which the error flows. spread: variance or scaled range, 16 fraction
    bits. extremes: (first maximum, first minimum), where the deviation is a range.
    """

    m8: int
    spread: int
    root: int
    lift: int
    n: int = 0
    own: bool = True
    extremes: tuple[int, int] | None = None


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


def shifted(x: int, shift: int) -> int:
    """x 2^shift, what falls off on the right cut."""
    return x << shift if shift >= 0 else x >> -shift


def inverse_root(variance: int) -> tuple[int, int]:
    """1 / sqrt(variance) as (16-bit root, exponent)."""
    shift = 32 - variance.bit_length()
    shift -= shift % 2
    return math.isqrt((1 << 62) // shifted(variance, shift)), shift // 2 - 31


def reciprocal(x: int) -> tuple[int, int]:
    """1 / x as (16-bit mantissa, exponent)."""
    shift = 31 - x.bit_length()
    return (1 << 46) // shifted(x, shift), shift - 46


def epsilon(eps: float, exponent: int) -> int:
    """eps with 16 fraction bits in units of 2^exponent."""
    return min(max(1, round(Fraction(eps) * 2**16 / value(1, exponent))), LARGEST_EPSILON)


def rows(codes: Codes, n_cells: int) -> Codes:
    """[n, C, ...] -> [cells, elements]; as many cells as channels, or as channels of all instances."""
    if n_cells == codes.shape[1]:
        return np.moveaxis(codes, 1, 0).reshape(n_cells, -1)
    return codes.reshape(n_cells, -1)


def column(values: Sequence[int], like: Codes) -> Codes:
    """One value a cell, broadcast over `like`."""
    return np.array(values, dtype=np.int64).reshape(-1, like.shape[1], *([1] * (like.ndim - 2)))


def forward(a: Stored, cells: list[Cell], scale: Stored, shift: Stored) -> Wide:
    """y = (A a + B) 2^grid of every element, one grid per cell."""
    gains, offsets, grids = [], [], []
    for i, cell in enumerate(cells):
        gamma, beta = (int(x.codes[i % len(x.codes)]) for x in (scale, shift))
        product = gamma * cell.root
        exponent = scale.exponent + cell.lift
        offset = half_up(beta, min(max(exponent - 8 - shift.exponent, -46), 62)) - cell.m8 * product
        down = max(abs(product).bit_length() - 15, abs(offset).bit_length() - 31, 0)
        gains.append(half_up(product, down))
        offsets.append(half_up(offset, down + 8))
        grids.append(exponent + down)
    return Wide(column(gains, a.codes) * a.codes + column(offsets, a.codes), column(grids, a.codes))


@dataclass(frozen=True)
class Sums:
    """Of one cell's errors g: T1 = sum g, centred = 2^8 sum g (a - m)."""

    total: int
    centred: int


def error_sums(error: Codes, a: Stored, cells: list[Cell]) -> list[Sums]:
    """The two sums of every cell."""
    found = []
    for g, row, cell in zip(rows(error, len(cells)), rows(a.codes, len(cells)), cells, strict=True):
        total = int(g.sum())
        found.append(Sums(total, (int((g * row).sum()) << 8) - cell.m8 * total))
    return found


def slope(s: Sums, cell: Cell) -> tuple[int, int]:
    """sum g (a - m) / deviation, as mantissa and exponent."""
    mantissa, lift = narrowed(s.centred, 30)
    return mantissa * cell.root, lift - 8 + cell.lift


Term = tuple[int, int, int]
"""An integer, its exponent relative to the gain's, and the bits it is left with."""


def centring(cell: Cell, rest: int, total: int, centred: tuple[int, int], beside: int = 0) -> tuple[Term, Term]:
    """(Q, R) of the error that flows through mean and variance; `beside`: the exponent of rest over the gain's."""
    square = half_up(cell.root * cell.root, 16)
    k, k_lift = narrowed(divided(centred[0] * square, cell.n), 15)
    exponent = k_lift + centred[1] + 16 + 2 * cell.lift
    common = max(exponent - 8, -16)
    moved = half_up(cell.m8 * k, common - (exponent - 8))
    mean_error = half_up(divided(total << 16, cell.n), common + 16)
    return (-rest * k, exponent + beside, 15), (rest * (moved - mean_error), common + beside, 22)


def on_common_grid(gain: int, terms: Sequence[Term]) -> tuple[int, ...]:
    """(grid relative to the gain's, P, the terms), in units of 2^grid."""
    grid = max(abs(gain).bit_length() - 14, -8)
    for term, exponent, bits in terms:
        if term:
            grid = max(grid, abs(term).bit_length() - bits + exponent)
    return (grid, half_up(gain, grid), *(half_up(term, min(grid - exponent, 62)) for term, exponent, _ in terms))


def blended(old: list[Fraction], batch: list[Fraction], share: float, bits: int) -> list[Fraction]:
    """Running statistics after a step: codes of so many bits on one grid for all channels."""
    amax = max(abs(x) for x in (*old, *batch))
    grid = smallest_exponent(2 ** (bits - 1) - 1, amax)
    fine, weight = value(1, grid - 16), round(share * 2**16)

    def nearest(x: Fraction) -> int:
        return math.floor(x / fine + Fraction(1, 2))

    codes = [half_up(nearest(o) * (2**16 - weight) + nearest(b) * weight, 32) for o, b in zip(old, batch, strict=True)]
    return [value(code, grid) for code in codes]
