"""Layers without parameters: pooling, shortcut copies, activation masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtrain.reference.layout import Node
from qtrain.reference.numbers import Stored, Wide

Codes = NDArray[np.int64]
RECIPROCAL_BITS = 16
RELU6_CAP = 6


def mask(out: Stored, activation: str) -> Codes:
    """1 where the activation passed its input on."""
    passed = out.codes > 0
    if activation == "relu6":
        # code 2^e < 6, on whichever side the shift is exact
        e = out.exponent
        passed &= (out.codes < RELU6_CAP << -e) if e < 0 else (out.codes << e < RELU6_CAP)
    return passed.astype(np.int64)


def windows(x: Codes, node: Node, fill: int) -> Codes:
    """[n, C, H', W', window elements in row-major order]."""
    layer, (top, bottom, left, right) = node.layer, node.pad
    height, width, down, across = node.window
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    views = [
        padded[
            :,
            :,
            i : i + down * (layer.out_height - 1) + 1 : down,
            j : j + across * (layer.out_width - 1) + 1 : across,
        ]
        for i in range(height)
        for j in range(width)
    ]
    return np.stack(views, axis=-1)


def spread(parts: Codes, node: Node, shape: tuple[int, ...]) -> Codes:
    """The transpose of `windows`: adds each window element where it was read."""
    layer, (top, bottom, left, right) = node.layer, node.pad
    height, width, down, across = node.window
    n, channels, in_height, in_width = shape
    total = np.zeros((n, channels, in_height + top + bottom, in_width + left + right), dtype=np.int64)
    for k in range(height * width):
        i, j = divmod(k, width)
        total[
            :,
            :,
            i : i + down * (layer.out_height - 1) + 1 : down,
            j : j + across * (layer.out_width - 1) + 1 : across,
        ] += parts[..., k]
    return total[:, :, top : top + in_height, left : left + in_width]


def max_pool(x: Codes, node: Node) -> tuple[Codes, Codes]:
    """The maxima, and which element of its window each is (the first in row-major order)."""
    taken = windows(x, node, np.iinfo(np.int64).min)
    where = taken.argmax(axis=-1)
    return np.take_along_axis(taken, where[..., None], -1)[..., 0], where


def max_pool_error(error: Codes, where: Codes, node: Node, shape: tuple[int, ...]) -> Codes:
    """Each error added to the element that was the maximum."""
    elements = node.window[0] * node.window[1]
    parts = (np.arange(elements) == where[..., None]) * error[..., None]
    return spread(parts, node, shape)


def reciprocal(node: Node) -> int:
    """1 / window size with 16 fraction bits."""
    count = node.window[0] * node.window[1]
    return (2 ** (RECIPROCAL_BITS + 1) + count) // (2 * count)


def average_pool(x: Stored, node: Node) -> Wide:
    """Window sums times the reciprocal."""
    return Wide(windows(x.codes, node, 0).sum(axis=-1) * reciprocal(node), x.exponent - RECIPROCAL_BITS)


def average_pool_error(error: Stored, node: Node, shape: tuple[int, ...]) -> Stored | Wide:
    """The error's share for every element; still codes where a power of two divides and windows lie apart."""
    height, width, down, across = node.window
    count = height * width
    parts = np.repeat(error.codes[..., None], count, axis=-1)
    sums = spread(parts, node, shape)
    if count & (count - 1) == 0 and (height, width) == (down, across):
        return Stored(sums, error.exponent - (count.bit_length() - 1))
    return Wide(sums * reciprocal(node), error.exponent - RECIPROCAL_BITS)


def moved(x: Codes, moves: tuple[tuple[str, Any], ...]) -> Codes:
    """A shortcut's slices and zero paddings (widths from the last dimension backwards, as in torch.nn.functional)."""
    for kind, argument in moves:
        x = x[argument] if kind == "slice" else np.pad(x, _pad_pairs(argument, x.ndim))
    return x


def moved_back(error: Codes, moves: tuple[tuple[str, Any], ...], shape: tuple[int, ...]) -> Codes:
    """Its transpose: `shape` is the input's."""
    places = moved(np.arange(1, int(np.prod(shape)) + 1).reshape(shape), moves)
    back = np.zeros(int(np.prod(shape)) + 1, dtype=np.int64)
    back[places.ravel()] = error.ravel()  # place 0 is padding
    return back[1:].reshape(shape)


def _pad_pairs(widths: Sequence[int], ndim: int) -> list[tuple[int, int]]:
    values = list(widths)
    pairs = [(values[i], values[i + 1]) for i in range(0, len(values), 2)]
    return [*([(0, 0)] * (ndim - len(pairs))), *reversed(pairs)]
