"""Images moved and mapped without loops: affine maps, whole-pixel shifts and Gaussian blur, edges repeated outwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLUR_REACH = 3
"""Standard deviations at which a Gaussian is cut off: what lies beyond is 0.3 % of it."""


def rotations(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Matrices [n, 2, 2] that turn (row, column) about the image's centre by `degrees` [n]."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def affine(images: NDArray[np.float32], matrices: NDArray[np.float64]) -> NDArray[np.float32]:
    """Images [n, C, H, W] read at matrix [n, 2, 2] x (row, column) from the centre, bilinear between pixel centres."""
    n, n_channels, height, width = images.shape
    rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)
    place = matrices @ grid  # [n, 2, H W]
    y = np.clip(place[:, 0] + (height - 1) / 2, 0, height - 1)
    x = np.clip(place[:, 1] + (width - 1) / 2, 0, width - 1)
    top, left = y.astype(np.int64), x.astype(np.int64)
    below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    dy, dx = (y - top).astype(np.float32)[:, None], (x - left).astype(np.float32)[:, None]
    flat = images.reshape(n, n_channels, -1)

    def at(row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.take_along_axis(flat, (row * width + column)[:, None], axis=2)

    upper = at(top, left) * (1 - dx) + at(top, right) * dx
    lower = at(below, left) * (1 - dx) + at(below, right) * dx
    return (upper * (1 - dy) + lower * dy).reshape(images.shape)


def shift(
    images: NDArray[np.float32], down: NDArray[np.int64], right: NDArray[np.int64], mirrored: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Images [n, C, H, W], each mirrored left to right where `mirrored` [n], then moved by whole pixels."""
    n, n_channels, height, width = images.shape
    rows = np.clip(np.arange(height) - down[:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - right[:, None], 0, width - 1)
    columns = np.where(mirrored[:, None], width - 1 - columns, columns)
    return images[
        np.arange(n)[:, None, None, None],
        np.arange(n_channels)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def blur(images: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Images [n, C, H, W] smoothed by a Gaussian of standard deviation `sigma` pixels; 0 changes nothing."""
    reach = int(np.ceil(BLUR_REACH * sigma))
    if reach == 0:
        return images
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    rows, columns = (_smoothing(size, taps / taps.sum()) for size in images.shape[2:])
    return (rows @ images @ columns.T).astype(np.float32)


def _smoothing(size: int, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix [size, size] that smooths one axis by `taps`."""
    reach = len(taps) // 2
    matrix = np.zeros((size, size))
    for offset, tap in zip(range(-reach, reach + 1), taps, strict=True):
        np.add.at(matrix, (np.arange(size), np.clip(np.arange(size) + offset, 0, size - 1)), tap)
    return matrix
