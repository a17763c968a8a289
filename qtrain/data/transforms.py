"""Image sizes and augmentation on whole batches, in NumPy."""

from __future__ import annotations

from math import isqrt

import numpy as np
from numpy.typing import NDArray

from qtrain.errors import QtrainError

CHUNK = 1024
"""Images resized at a time: the float copy stays small."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in luma: Recommendation ITU-R BT.601, section 2.5.1."""


def axis_weights(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Matrix [n_out, n_in] that resizes one axis; rows sum to 1.

    Shrinking: the mean of the input pixels under each output pixel, weighted by overlap (a block mean where n_in
    is a multiple of n_out). Growing: linear between pixel centres, the edge pixels repeated outwards.
    """
    scale = n_in / n_out
    if n_out <= n_in:
        left = np.arange(n_out)[:, None] * scale
        pixels = np.arange(n_in)[None]
        overlap = np.minimum(left + scale, pixels + 1) - np.maximum(left, pixels)
        weights = np.maximum(overlap, 0)
        return weights / weights.sum(axis=1, keepdims=True)
    centre = np.clip((np.arange(n_out) + 0.5) * scale - 0.5, 0, n_in - 1)
    return np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(n_in)[None]))


def resize(images: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Images uint8 [n, C, H, W] brought to `shape` (C, H, W), rounded to uint8 once at the end.

    Height and width: see `axis_weights`. Channels: gray is repeated; RGB becomes gray by the luma of ITU-R
    BT.601; nothing else is possible (QtrainError). A vector (one row asked from images of several) takes the
    image resized to the h x w = W nearest a square (h <= w), read row by row: 640 is 20 x 32.
    """
    if images.shape[1:] == shape:
        return images
    channels, height, width = shape
    is_vector = height == 1 and images.shape[2] > 1
    if is_vector:
        height = next(h for h in range(isqrt(width), 0, -1) if width % h == 0)
        width //= height
    if (images.shape[1], channels) != (3, 1) and images.shape[1] not in (1, channels):
        raise QtrainError(f"images of {images.shape[1]} channels cannot be given {channels}; choose 1 or 3 of both")
    rows, columns = axis_weights(images.shape[2], height), axis_weights(images.shape[3], width)
    resized = np.empty((len(images), channels, height, width), dtype=np.uint8)
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK].astype(np.float64)
        if channels == 1 and part.shape[1] == 3:
            part = np.tensordot(LUMA, part, axes=(0, 1))[:, None]
        resized[start : start + CHUNK] = np.rint(rows @ part @ columns.T)  # one channel fills all
    return resized.reshape(len(images), *shape)


def augment(images: NDArray, rng: np.random.Generator, pad: int = 4, flip: bool = True) -> NDArray:
    """Random crops of images [n, C, H, W] padded with `pad` zeros all round, mirrored with probability 1/2.

    He et al. 2016, section 4.2: pad 4, crop 32x32, flip. Each image draws its own offsets in 0..2*pad.
    Shape and type stay. `pad` 0 crops nothing.
    """
    n, n_channels, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    top, left = rng.integers(0, 2 * pad + 1, size=(2, n))
    columns = np.tile(np.arange(width), (n, 1))
    if flip:
        mirrored = rng.random(n) < 0.5
        columns[mirrored] = columns[mirrored, ::-1]
    return padded[
        np.arange(n)[:, None, None, None],
        np.arange(n_channels)[None, :, None, None],
        (top[:, None] + np.arange(height))[:, None, :, None],
        (left[:, None] + columns)[:, None, None, :],
    ]
