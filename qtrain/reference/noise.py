"""The noise of stochastic rounding, from its written definition."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST, SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


def mixed(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """lowbias32 of every word."""
    words = words ^ (words >> np.uint32(16))
    words = words * FIRST
    words = words ^ (words >> np.uint32(15))
    words = words * SECOND
    return words ^ (words >> np.uint32(16))


@dataclass(frozen=True)
class Place:
    """Which noise a tensor gets: the run's seed, the step and the name of the quantization point."""

    seed: int
    step: int
    name: str

    def draw(self, shape: tuple[int, ...], rows: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """24-bit integers for a tensor of `shape` by row-major index; `rows` are its first dimension's positions in
        the whole one (None: it is whole)."""
        key = np.array([self.seed], dtype=np.uint32)
        key = mixed(np.uint32(self.step) ^ mixed(key))
        key = mixed(np.uint32(zlib.crc32(self.name.encode())) ^ key)
        size = int(np.prod(shape[1:]))
        starts = (np.arange(shape[0]) if rows is None else rows) * size
        index = (starts[:, None] + np.arange(size)).ravel().astype(np.uint32)
        return (mixed(index ^ key) >> np.uint32(8)).astype(np.int64).reshape(shape)
