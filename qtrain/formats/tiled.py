"""Rounding by PyTorch's and NumPy's operations in tiles that stay in the cache: rounding.py's bits, in half its time.

NumPy hashes, for its unsigned words shift in zeros. The hash's first step, x ^= x >> 16, is linear over XOR; where rows
are a power of two long, an element's index is its row's start XOR its place in the row, and both are put through that
step once instead of for every element.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qtrain.formats.noise import MIX_MULTIPLIERS, MIX_SHIFTS, NOISE_BITS, Stream, row_indices
from qtrain.formats.rounding import round_to_integer

TILE = 1 << 16
"""Elements of a tile: its five scratch arrays fill a second-level cache of 1.25 MiB, and some 20 calls are repaid."""
Words = NDArray[np.uint32]


def in_memory_order(x: Tensor) -> Tensor:
    """x as one dimension [x.numel()], without a copy where it is dense in NCHW or channels_last order."""
    if x.dim() == 4 and not x.is_contiguous():
        x = x.permute(0, 2, 3, 1)
    return x.reshape(-1)


def is_dense(x: Tensor) -> bool:
    """Whether x lies without gaps in NCHW or channels_last order."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def nearest_tiled(x: Tensor, inverse: float, step: float, low: float, high: float) -> Tensor:
    """clamp(round half to even(x * inverse), low, high) * step for a dense x on the CPU, laid out like x."""
    out = torch.empty_like(x)
    source, target = in_memory_order(x), in_memory_order(out)
    for start in range(0, x.numel(), TILE):
        part = torch.mul(source[start : start + TILE], inverse, out=target[start : start + TILE])
        part.round_().clamp_(low, high).mul_(step)
    return out


def quantize_tiled(x: Tensor, inverse: float, step: float, low: float, high: float, stream: Stream) -> Tensor:
    """clamp(stochastic round(x * inverse), low, high) * step for a dense x [n, ...] on the CPU, laid out like x."""
    last = x.dim() == 4 and not x.is_contiguous()
    out = torch.empty_like(x)
    source, target = in_memory_order(x), in_memory_order(out)
    shape: tuple[int, ...]
    if not last and stream.rows is None:  # logical order is memory order: any rows will do
        size = min(TILE, x.numel())
        rows, shape = np.arange(math.ceil(x.numel() / size)), (size,)
    else:
        n = x.shape[0] if x.dim() else 1
        size, shape = x.numel() // n, tuple(x.shape[1:])
        rows = np.arange(n) if stream.rows is None else stream.rows.numpy()
    starts = (rows * size).astype(np.uint32).reshape(-1, 1)
    inner, split = inner_words(shape, last), size & (size - 1) == 0
    key = np.uint32(stream.key)
    starts = _first_step(starts ^ key) if split else starts
    scratch = _Scratch(min(max(TILE, size), x.numel()), x.dtype)
    whole = max(1, TILE // size)  # rows a tile
    for row in range(0, len(rows), whole):
        for column in range(0, size, TILE):
            part = inner[split][column : column + TILE]
            first, some = row * size + column, starts[row : row + whole]
            length = len(some) * len(part)
            word = scratch.word[:length]
            (np.bitwise_xor if split else np.add)(some, part, out=word.reshape(len(some), -1))
            if not split:
                np.bitwise_xor(word, key, out=word)
                _shifted(word, MIX_SHIFTS[0], scratch.shifted[:length])
            scratch.round(source, target, first, min(length, x.numel() - first), inverse, step, low, high)
    return out


@lru_cache(maxsize=256)
def inner_words(shape: tuple[int, ...], last: bool) -> tuple[Words, Words]:
    """Logical indices inside one row as they lie, and the same after the hash's first step."""
    index = in_memory_order(row_indices(shape, last, torch.device("cpu"))).numpy().view(np.uint32)
    return index, _first_step(index)


def _first_step(words: Words) -> Words:
    return words ^ words >> np.uint32(MIX_SHIFTS[0])


def _shifted(word: Words, shift: int, scratch: Words) -> None:
    """word ^= word >> shift."""
    np.right_shift(word, shift, out=scratch)
    np.bitwise_xor(word, scratch, out=word)


def round_in_tiles(x: Tensor, rounding: str, stream: Stream | None) -> Tensor:
    """`round_to_integer`; stochastic rounding of what lies dense on the CPU in tiles, of the same bits."""
    if rounding == "stochastic" and stream is not None and x.numel() > 1 and x.device.type == "cpu" and is_dense(x):
        return quantize_tiled(x, 1.0, 1.0, -math.inf, math.inf, stream)
    return round_to_integer(x, rounding, stream)


class _Scratch:
    """What one tile needs: the hash's words, and the numbers being rounded."""

    def __init__(self, length: int, dtype: torch.dtype) -> None:
        self.word, self.shifted = np.empty(length, np.uint32), np.empty(length, np.uint32)
        self.noise, self.whole, self.part = (torch.empty(length, dtype=dtype) for _ in range(3))

    def round(self, source: Tensor, target: Tensor, start: int, length: int, inverse: float, step: float, low: float,
              high: float) -> None:  # fmt: skip
        """Round source[start : start + length] into target; the words hold the logical indices after the hash's first
        step."""
        word, shifted = self.word[:length], self.shifted[:length]
        for multiplier, shift in zip(MIX_MULTIPLIERS, MIX_SHIFTS[1:], strict=True):
            np.multiply(word, np.uint32(multiplier), out=word)
            _shifted(word, shift, shifted)
        np.right_shift(word, 32 - NOISE_BITS, out=word)
        noise, whole, part = self.noise[:length], self.whole[:length], self.part[:length]
        noise.copy_(torch.from_numpy(word.view(np.int32)))
        out = torch.mul(source[start : start + length], inverse, out=target[start : start + length])
        torch.abs(out, out=part)
        torch.floor(part, out=whole)
        part.sub_(whole).mul_(float(1 << NOISE_BITS))
        whole.add_(torch.lt(noise, part, out=noise)).copysign_(out)
        torch.mul(whole.clamp_(low, high), step, out=out)
