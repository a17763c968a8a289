"""Views of whole batches. Random ones: weak, which keeps an image's meaning, and strong, which makes it hard to read;
and a still one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qtrain.data.warp import affine, rotations, shift

WEAK_SHIFT = 0.125
"""Shifts of up to this share of the size, and mirroring: the weak view of FixMatch (Sohn et al. 2020, section 2.3)."""
DEGREES, ZOOM, CONTRAST, BRIGHTNESS, CUT = 30.0, 0.2, 0.5, 0.5, 0.5
"""Ranges of the strong view (chosen here, within RandAugment's: Cubuk et al. 2020): rotation in degrees, change of
size, of contrast and of brightness (in standard deviations), and the side of the square cut out (share of the size:
Cutout, DeVries and Taylor 2017)."""


def weak(images: NDArray[np.float32], rng: np.random.Generator, flip: bool = True) -> NDArray[np.float32]:
    """Images [n, C, H, W] shifted at random and, with `flip`, mirrored with probability 1/2."""
    n, _, height, width = images.shape
    down = rng.integers(-_farthest(height), _farthest(height) + 1, (n,))
    right = rng.integers(-_farthest(width), _farthest(width) + 1, (n,))
    mirrored = np.asarray(rng.random(n) < (0.5 if flip else 0.0))
    return shift(images, down, right, mirrored)


def _farthest(size: int) -> int:
    """The largest shift, in pixels: one at least, so that no view is the image itself for certain."""
    return max(1, round(WEAK_SHIFT * size))


def strong(images: NDArray[np.float32], rng: np.random.Generator, flip: bool = True) -> NDArray[np.float32]:
    """The weak view, turned, zoomed, with another contrast and brightness, and with a square cut out."""
    n, _, height, width = images.shape
    moved = weak(images, rng, flip)
    degrees, zoom, contrast, brightness = rng.uniform(-1, 1, (4, n))
    matrices = rotations(DEGREES * degrees) * (1 + ZOOM * zoom)[:, None, None]
    seen = affine(moved, matrices)
    gain = (1 + CONTRAST * contrast).astype(np.float32)[:, None, None, None]
    seen = seen * gain + (BRIGHTNESS * brightness).astype(np.float32)[:, None, None, None]
    rows = _in_cut(rng, n, height)[:, None, :, None]
    columns = _in_cut(rng, n, width)[:, None, None, :]
    return np.where(rows & columns, np.float32(0), seen)  # 0: the training set's mean


def _in_cut(rng: np.random.Generator, n: int, size: int) -> NDArray[np.bool_]:
    """Whether each position [n, size] of an axis lies in the cut, whose centre is drawn inside the image."""
    centre = rng.integers(0, size, n)[:, None]
    return np.abs(np.arange(size) - centre) * 2 < CUT * size


def still(images: NDArray[np.float32], flip: bool = True) -> NDArray[np.float32]:
    """The one view of images [n, C, H, W] that nothing random enters: mirrored left to right; without `flip` moved to
    the right by the weak view's largest shift. Either is among what the random views do, so that a network trained on
    those learns to see the image and its still view as the same."""
    n, width = len(images), images.shape[3]
    right = 0 if flip else _farthest(width)
    return shift(images, np.zeros(n, np.int64), np.full(n, right), np.full(n, flip))
