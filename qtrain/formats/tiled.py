"""Rounding by PyTorch's and NumPy's operations in tiles that stay in the cache: rounding.py's bits, in half its time.

NumPy hashes, for its unsigned words shift in zeros. The hash's first step, x ^= x >> 16, is linear over XOR; where rows
are a power of two long, an element's index is its row's start XOR its place in the row, and both are put through that
step once instead of for every element. So it is for a first row alone, whose start is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qtrain.formats.noise import MIX_MULTIPLIERS, MIX_SHIFTS, NOISE_BITS, Stream, row_indices
from qtrain.formats.rounding import round_to_integer

TILE = 1 << 17
"""Elements of a tile: enough to repay its 20 calls, some 30 us, few enough for its three scratch arrays (1.5 MiB in
float32) to stay in the cache. With 1 MiB of second and 32 of third level half of it took a tenth longer, a quarter of
it a fourth."""
_MULTIPLIERS = tuple(np.uint32(m) for m in MIX_MULTIPLIERS)
_SIGN: dict[int, Any] = {4: np.uint32(1 << 31), 8: np.uint64(1 << 63)}
"""The sign's bit in a float of so many bytes."""
_SAFE = 2.0**-64, 2.0**64
"""Numbers this far from float32's ends are exact when multiplied by a power of two that brought them here."""
Words = NDArray[np.uint32]


def in_memory_order(x: Tensor) -> Tensor:
    """x as one dimension [x.numel()], without a copy where it is dense in NCHW or channels_last order."""
    if x.dim() == 4 and not x.is_contiguous():
        x = x.permute(0, 2, 3, 1)
    return x.reshape(-1)


def is_dense(x: Tensor) -> bool:
    """Whether x lies without gaps in NCHW or channels_last order."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def nearest_tiled(
    x: Tensor, inverse: float, step: float, low: float, high: float, plus: Tensor | None = None
) -> tuple[Tensor, float | None]:
    """clamp(round half to even(y * inverse), low, high) * step of y = x (+ plus, which lies as x does), dense on the
    CPU; laid out like x. And the largest y, or |y| with a `low` below zero, unless y * inverse can't tell it."""
    out, seen = torch.empty_like(x), 0.0
    source, target = in_memory_order(x), in_memory_order(out)
    others = None if plus is None else in_memory_order(plus)
    for first in range(0, x.numel(), TILE):
        place = slice(first, first + TILE)
        y = source[place] if others is None else torch.add(source[place], others[place], out=target[place])
        part = torch.mul(y, inverse, out=target[place])
        ends = torch.aminmax(part) if low < 0 else (part.amax(),)
        largest = _larger(float(ends[-1]), -float(ends[0]) if low < 0 else 0.0)
        seen = _larger(seen, largest)
        part.round_()
        if low >= 0 or not largest <= min(-low, high):  # NaN, too
            part.clamp_(low, high)
        part.mul_(step)
    return out, _told(seen, step)


def _larger(*numbers: float) -> float:
    """The largest; NaN where one is."""
    return math.nan if any(map(math.isnan, numbers)) else max(numbers)


def _told(codes: float, step: float) -> float | None:
    """codes x step, unless overflow or underflow may have befallen the codes."""
    return codes * step if _SAFE[0] < codes < _SAFE[1] else None


@np.errstate(all="ignore")  # infinities saturate in silence
def quantize_tiled(
    x: Tensor, inverse: float, step: float, low: float, high: float, stream: Stream, plus: Tensor | None = None
) -> tuple[Tensor, float | None]:
    """As `nearest_tiled`, rounded stochastically; the largest magnitude where low is below zero."""
    last = x.dim() == 4 and not x.is_contiguous()
    out = torch.empty_like(x)
    source, target = (in_memory_order(t.detach()).numpy() for t in (x, out))
    others = None if plus is None else in_memory_order(plus).numpy()
    seen = 0.0
    shape: tuple[int, ...]
    if not last and stream.rows is None:  # logical order is memory order: any rows will do
        size = min(TILE, x.numel())
        rows, shape = np.arange(math.ceil(x.numel() / size)), (size,)
    else:
        n = x.shape[0] if x.dim() else 1
        size, shape = x.numel() // n, tuple(x.shape[1:])
        rows = np.arange(n) if stream.rows is None else stream.rows.numpy()
    starts = (rows * size).astype(np.uint32).reshape(-1, 1)
    inner, split = inner_words(shape, last), size & (size - 1) == 0 or not starts.any()
    key = np.uint32(stream.key)
    starts = _first_step(starts ^ key) if split else starts
    tile = None
    whole = max(1, TILE // size)  # rows a tile
    for row in range(0, len(rows), whole):
        for column in range(0, size, TILE):
            first, some = row * size + column, starts[row : row + whole]
            part = inner[split][column : column + TILE][: x.numel() - first]
            length = len(some) * len(part)
            if tile is None or tile.length != length:
                tile = _Tile(length, source.dtype)
            (np.bitwise_xor if split else np.add)(some, part, out=tile.word.reshape(len(some), -1))
            if not split:
                np.bitwise_xor(tile.word, key, out=tile.word)
                _shifted(tile.word, MIX_SHIFTS[0], tile.shifted)
            place = slice(first, first + length)
            y = source[place] if others is None else np.add(source[place], others[place], out=target[place])
            seen = _larger(seen, tile.round(y, target[place], inverse, step, low, high))
    return out, _told(seen, step) if low < 0 else None


def quantize_parts(
    x: Tensor, sizes: Sequence[int], exponents: Sequence[int], top: int, streams: Sequence[Stream]
) -> Tensor:
    """A float64 vector of tensors of these `sizes`, each in row-major order: each rounded stochastically to codes of at
    most `top` on its own exponent, with the noise of its own stream (`rows` aside)."""
    keys = _first_step(np.array([stream.key for stream in streams], np.uint32))
    words = _parts_words(tuple(sizes)) ^ np.repeat(keys, sizes)
    steps = torch.from_numpy(np.repeat(np.ldexp(1.0, exponents), sizes))
    scaled = (x / steps).numpy()
    out = np.empty_like(scaled)
    for first in range(0, len(words), TILE):
        part = words[first : first + TILE]
        tile = _Tile(len(part), scaled.dtype)
        tile.word[:] = part
        tile.round(scaled[first : first + TILE], out[first : first + TILE], 1.0, 1.0, -top, top)
    return torch.from_numpy(out).mul_(steps)


@lru_cache(maxsize=8)
def _parts_words(sizes: tuple[int, ...]) -> Words:
    """Indices of every part one behind the other, after the hash's first step."""
    return _first_step(np.concatenate([np.arange(size, dtype=np.uint32) for size in sizes]))


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
        return quantize_tiled(x, 1.0, 1.0, -math.inf, math.inf, stream)[0]
    return round_to_integer(x, rounding, stream)


class _Tile:
    """Scratch space for the rounding of `length` numbers; `word` begins with the words of their logical indices after
    the hash's first step. Three arrays hold all that is needed at a time, so that they stay in the cache."""

    def __init__(self, length: int, dtype: np.dtype[Any]) -> None:
        self.length, self.arrays = length, np.empty((3, length), dtype)
        self.whole, self.noise, self.part = torch.from_numpy(self.arrays).unbind()
        self.word, self.shifted = (line.view(np.uint32)[:length] for line in self.arrays[:2])

    def round(self, x: NDArray[Any], out: NDArray[Any], inverse: float, step: float, low: float, high: float) -> float:
        """Round x into out; returns the largest |x * inverse|."""
        word, (whole, noise, part), sign = self.word, self.arrays, _SIGN[x.itemsize]
        for multiplier, shift in zip(_MULTIPLIERS, MIX_SHIFTS[1:], strict=True):
            np.multiply(word, multiplier, out=word)
            _shifted(word, shift, self.shifted)
        np.right_shift(word, 32 - NOISE_BITS, out=word)
        np.copyto(noise, word.view(np.int32))
        np.multiply(x, inverse, out=part)
        np.abs(part, out=part)
        seen = float(part.max())
        np.floor(part, out=whole)
        np.subtract(part, whole, out=part)
        np.multiply(part, float(1 << NOISE_BITS), out=part)
        self.whole.add_(torch.lt(self.noise, self.part, out=self.noise))
        bits, signs = whole.view(sign.dtype), noise.view(sign.dtype)
        np.bitwise_and(x.view(sign.dtype), sign, out=signs)
        np.bitwise_or(bits, signs, out=bits)
        if not seen < min(-low, high):  # NaN, too
            self.whole.clamp_(low, high)
        np.multiply(whole, step, out=out)
        return seen
