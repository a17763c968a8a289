"""Normalizations of one cell a channel: by a batch's variance or range, or by running statistics."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from qtrain.reference.layout import Node
from qtrain.reference.norms.constants import (
    Cell,
    Codes,
    Sums,
    blended,
    centring,
    column,
    divided,
    epsilon,
    half_up,
    inverse_root,
    narrowed,
    on_common_grid,
    reciprocal,
    rows,
    slope,
)
from qtrain.reference.numbers import Stored, Wide, value

MIN_ELEMENTS = 2
LARGEST_SPREAD = 1 << 50
Held = tuple[list[Fraction], list[Fraction]]


def statistics(node: Node, a: Stored, held: Held) -> tuple[list[Cell], Held]:
    """Each channel's constants, and the running statistics after them."""
    n = a.codes[:, 0].size
    if node.layer.kind == "frozennorm" or n < MIN_ELEMENTS:
        return _running(node, a, held), held
    of_row = _of_range if _ranges(node) else _of_variance
    cells = [of_row(node, row, a) for row in rows(a.codes, a.codes.shape[1])]
    units = value(1, a.exponent - 8), value(1, (1 if _ranges(node) else 2) * a.exponent - 16)
    w = node.widths
    means = blended(held[0], [c.m8 * units[0] for c in cells], node.share, w.mean_bits)
    return cells, (means, blended(held[1], [c.spread * units[1] for c in cells], node.share, w.variance_bits))


def _ranges(node: Node) -> bool:
    return node.layer.kind == "rangenorm"


def _of_variance(node: Node, row: Codes, a: Stored) -> Cell:
    m8 = divided(int(row.sum()) << 8, row.size)
    v16 = max((divided(int((row * row).sum()) << 8, row.size) << 8) - m8 * m8, 0)
    root, lift = inverse_root(v16 + epsilon(node.epsilon, 2 * a.exponent))
    return Cell(m8, v16, root, lift + 8, row.size)


def range_share(n: int) -> int:
    """C(n) = 1 / sqrt(2 ln n) with 16 fraction bits."""
    return round(2**16 / math.sqrt(2 * math.log(n)))


def _of_range(node: Node, row: Codes, a: Stored) -> Cell:
    m8 = divided(int(row.sum()) << 8, row.size)
    s16 = int(row.max() - row.min()) * range_share(row.size)
    root, lift = reciprocal(s16 + epsilon(node.epsilon, a.exponent))
    return Cell(m8, s16, root, lift + 16, row.size, extremes=(int(row.argmax()), int(row.argmin())))


def _running(node: Node, a: Stored, held: Held) -> list[Cell]:
    cells = []
    for mean, spread in zip(*held, strict=True):
        m8 = round(mean / value(1, a.exponent - 8))
        if _ranges(node):
            wide = _within(round(spread / value(1, a.exponent - 16)))
            root, lift = reciprocal(wide + epsilon(node.epsilon, a.exponent))
            cells.append(Cell(m8, wide, root, lift + 16, own=False))
        else:
            wide = _within(round(spread / value(1, 2 * a.exponent - 16)))
            root, lift = inverse_root(wide + epsilon(node.epsilon, 2 * a.exponent))
            cells.append(Cell(m8, wide, root, lift + 8, own=False))
    return cells


def _within(spread: int) -> int:
    return min(max(spread, 0), LARGEST_SPREAD)


def scale_gradient(sums: list[Sums], cells: list[Cell], n_channels: int) -> list[tuple[int, int]]:
    """One mantissa and exponent a channel."""
    return [slope(s, cell) for s, cell in zip(sums, cells, strict=True)]


def input_error(node: Node, g: Codes, a: Stored, cells: list[Cell], sums: list[Sums], scale: Stored) -> Wide:
    """dx of every element in units of the error's step over the input's."""
    gammas = scale.codes.tolist()
    found = [_constants(cell, s, gamma, scale) for cell, s, gamma in zip(cells, sums, gammas, strict=True)]
    grid, p, q, r = (column(list(values), g) for values in zip(*found, strict=True))
    dx = p * g + q * a.codes + r
    if not _ranges(node) or not cells[0].own:
        return Wide(dx, grid)
    codes, grids = (np.moveaxis(x, 1, 0) for x in (dx, np.broadcast_to(grid, dx.shape).copy()))
    by_channel, grid_by_channel = codes.reshape(len(cells), -1), grids.reshape(len(cells), -1)
    for i, (cell, s, gamma) in enumerate(zip(cells, sums, gammas, strict=True)):
        _add_extremes(by_channel[i], grid_by_channel[i], cell, s, gamma, scale)
    return Wide(*(np.moveaxis(x.reshape(codes.shape), 0, 1) for x in (by_channel, grid_by_channel)))


def _constants(cell: Cell, s: Sums, gamma: int, scale: Stored) -> tuple[int, int, int, int]:
    """(grid, P, Q, R)."""
    gain, lift = narrowed(gamma * cell.root, 15)
    base = lift + scale.exponent + cell.lift
    if not cell.own:
        grid, p = on_common_grid(gain, ())
        return grid + base, p, 0, 0
    if cell.extremes is not None:
        grid, p, r = on_common_grid(gain, [(-gain * divided(s.total << 16, cell.n), -16, 22)])
        return grid + base, p, 0, r
    centred, centred_lift = narrowed(s.centred, 30)
    grid, p, q, r = on_common_grid(gain, centring(cell, gain, s.total, (centred, centred_lift - 8)))
    return grid + base, p, q, r


def _add_extremes(codes: Codes, grids: Codes, cell: Cell, s: Sums, gamma: int, scale: Stored) -> None:
    """The deviation's share, of 22 bits at most, from the first maximum and to the first minimum of a channel."""
    assert cell.extremes is not None
    gain, lift = narrowed(gamma * cell.root, 15)
    centred, centred_lift = narrowed(s.centred, 30)
    k, k_lift = narrowed(half_up(centred * cell.root, 16) * range_share(cell.n), 15)
    exponent = k_lift + centred_lift - 8 + 2 * cell.lift + lift + scale.exponent
    grid = int(grids[0])
    coarser = max(abs(gain * k).bit_length() - 22 + exponent - grid, 0) if k else 0
    x = half_up(gain * k, min(grid + coarser - exponent, 62))
    for place, step in zip(cell.extremes, (-x, x), strict=True):
        codes[place] = half_up(int(codes[place]), coarser) + step
        grids[place] = grid + coarser
