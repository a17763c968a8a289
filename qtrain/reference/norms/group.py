"""Group normalization: one cell an instance and channel, their statistics a group's."""

from __future__ import annotations

from typing import Any

from qtrain.reference.layout import Node
from qtrain.reference.norms.constants import (
    Cell,
    Codes,
    Sums,
    centring,
    column,
    divided,
    epsilon,
    half_up,
    inverse_root,
    narrowed,
    on_common_grid,
    slope,
)
from qtrain.reference.numbers import Stored, Wide

SUM_BITS = 30


def statistics(node: Node, a: Stored, held: Any) -> tuple[list[Cell], Any]:
    """Each instance's and channel's constants, in row-major order; nothing is held."""
    size = node.layer.out_channels // node.layer.groups
    eps = epsilon(node.epsilon, 2 * a.exponent)
    cells = []
    for group in a.codes.reshape(len(a.codes) * node.layer.groups, -1):
        m8 = divided(int(group.sum()) << 8, group.size)
        v16 = max((divided(int((group * group).sum()) << 8, group.size) << 8) - m8 * m8, 0)
        root, lift = inverse_root(v16 + eps)
        cells += [Cell(m8, v16, root, lift + 8, group.size)] * size
    return cells, held


def scale_gradient(sums: list[Sums], cells: list[Cell], n_channels: int) -> list[tuple[int, int]]:
    """Every instance's slope, on the largest one's grid of SUM_BITS bits, summed."""
    slopes = [slope(s, cell) for s, cell in zip(sums, cells, strict=True)]
    found = []
    for channel in range(n_channels):
        mine = [(code, e) for code, e in slopes[channel::n_channels] if code]
        grid = max((abs(code).bit_length() + e for code, e in mine), default=SUM_BITS) - SUM_BITS
        found.append((sum(half_up(code, min(grid - e, 62)) for code, e in mine), grid))
    return found


def input_error(node: Node, g: Codes, a: Stored, cells: list[Cell], sums: list[Sums], scale: Stored) -> Wide:
    """dx of every element in units of the error's step over the input's."""
    n_channels, size = node.layer.out_channels, node.layer.out_channels // node.layer.groups
    codes = [int(code) for code in scale.codes]
    narrow = max(max(abs(code).bit_length() for code in codes) - 15, 0)
    gammas = [half_up(code, narrow) for code in codes]
    found = []
    for start in range(0, len(cells), size):
        cell, group = cells[start], sums[start : start + size]
        mine = [(start + i) % n_channels for i in range(size)]
        down = max(max(abs(s.centred).bit_length() for s in group) - SUM_BITS, 0)
        u1 = sum(gammas[c] * s.total for c, s in zip(mine, group, strict=True))
        u2, lift = narrowed(sum(gammas[c] * half_up(s.centred, down) for c, s in zip(mine, group, strict=True)), 30)
        rest, rest_lift = narrowed(cell.root, 15)
        for c in mine:
            gain, gain_lift = narrowed(codes[c] * cell.root, 15)
            terms = centring(cell, rest, u1, (u2, lift + down - 8), rest_lift + narrow - gain_lift)
            grid, *constants = on_common_grid(gain, terms)
            found.append((grid + gain_lift + scale.exponent + cell.lift, *constants))
    grids, p, q, r = (column(list(values), g) for values in zip(*found, strict=True))
    return Wide(p * g + q * a.codes + r, grids)
