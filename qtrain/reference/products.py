"""Convolution and linear layers as integer matrix products over image columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtrain.reference.layout import Node
from qtrain.reference.numbers import Stored

Codes = NDArray[np.int64]


def columns(x: Codes, node: Node) -> Codes:
    """x [n, C, H, W] -> [n, groups, pixels out, C / groups * kernel]: one row per output pixel."""
    layer, (top, bottom, left, right) = node.layer, node.pad
    height, width, _, _ = node.window
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, channels = x.shape[:2]
    taken = np.empty((n, channels, height, width, layer.out_height, layer.out_width), dtype=np.int64)
    for i in range(height):
        for j in range(width):
            taken[:, :, i, j] = padded[:, :, _taps(i, 0, node), :][:, :, :, _taps(j, 1, node)]
    rows = taken.reshape(n, layer.groups, -1, layer.out_height * layer.out_width)
    return np.ascontiguousarray(rows.transpose(0, 1, 3, 2))


def _taps(offset: int, axis: int, node: Node) -> slice:
    """Where kernel element `offset` meets the padded input along an axis."""
    layer = node.layer
    size = (layer.out_height, layer.out_width)[axis]
    stride = (layer.stride_height, layer.stride_width)[axis]
    start = offset * node.dilation[axis]
    return slice(start, start + stride * (size - 1) + 1, stride)


def _grouped(weight: Codes, node: Node) -> Codes:
    """[K, ...] -> [groups, K / groups, products]."""
    groups = node.layer.groups
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def _pixels(error: Codes, node: Node) -> Codes:
    """[n, K, H, W] -> [n, groups, pixels, K / groups]."""
    n, groups = error.shape[0], node.layer.groups
    return error.reshape(n, groups, error.shape[1] // groups, -1).transpose(0, 1, 3, 2)


def forward(x: Codes, weight: Codes, node: Node) -> Codes:
    """Sums of products, [n, K, H', W'] or [n, K]."""
    layer = node.layer
    if layer.kind == "linear":
        return x.reshape(len(x), -1) @ weight.T
    sums = columns(x, node) @ _grouped(weight, node).transpose(0, 2, 1)
    return sums.transpose(0, 1, 3, 2).reshape(len(x), layer.out_channels, layer.out_height, layer.out_width)


def aligned(weight: Stored, node: Node) -> tuple[Codes, Any]:
    """(codes, exponent or exponents [C]) of weights [K, ...] on the grids where the output channels of a group meet:
    the smallest of their exponents."""
    if np.ndim(weight.exponent) == 0:
        return weight.codes, weight.exponent
    groups = node.layer.groups
    least = weight.exponent.reshape(groups, -1).min(axis=1)
    shift = weight.exponent - np.repeat(least, len(weight.codes) // groups).reshape(weight.exponent.shape)
    return weight.codes << shift, least[0] if groups == 1 else np.repeat(least, node.layer.in_channels // groups)


def input_error(error: Codes, weight: Codes, node: Node, shape: tuple[int, ...]) -> Codes:
    """Transposed convolution: every output pixel's error times the weights, added where its products came from."""
    layer = node.layer
    if layer.kind == "linear":
        return (error @ weight).reshape(shape)
    n, channels, in_height, in_width = shape
    height, width, _, _ = node.window
    products = _pixels(error, node) @ _grouped(weight, node)  # [n, g, pixels, products]
    products = products.transpose(0, 1, 3, 2).reshape(n, channels, height, width, layer.out_height, layer.out_width)
    top, bottom, left, right = node.pad
    total = np.zeros((n, channels, in_height + top + bottom, in_width + left + right), dtype=np.int64)
    for i in range(height):
        for j in range(width):
            total[:, :, _taps(i, 0, node), _taps(j, 1, node)] += products[:, :, i, j]
    return total[:, :, top : top + in_height, left : left + in_width]


def weight_gradient(error: Codes, x: Codes, node: Node, shape: tuple[int, ...]) -> Codes:
    """Sum over instances and pixels of error times input."""
    if node.layer.kind == "linear":
        return error.T @ x.reshape(len(x), -1)
    per_instance = _pixels(error, node).transpose(0, 1, 3, 2) @ columns(x, node)
    return per_instance.sum(axis=0).reshape(shape)


def bias_gradient(error: Codes) -> Codes:
    """Sum over everything but the output channel."""
    return error.sum(axis=tuple(d for d in range(error.ndim) if d != 1))
