"""Stochastic rounding by PyTorch's operations in tiles that stay in the cache: rounding.py's bits, half its time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qtrain.formats.noise import MIX_MULTIPLIERS, MIX_SHIFTS, NOISE_BITS, Stream, row_indices, signed_word
from qtrain.formats.rounding import round_to_integer

TILE = 1 << 17
"""Elements of a tile: its five scratch tensors fill a second-level cache of 2 MiB, and 27 calls are repaid."""
_WORD = 0xFFFFFFFF


def in_memory_order(x: Tensor) -> Tensor:
    """x as one dimension [x.numel()], without a copy where it is dense in NCHW or channels_last order."""
    if x.dim() == 4 and not x.is_contiguous():
        x = x.permute(0, 2, 3, 1)
    return x.reshape(-1)


def is_dense(x: Tensor) -> bool:
    """Whether x lies without gaps in NCHW or channels_last order."""
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def quantize_tiled(x: Tensor, inverse: float, step: float, low: float, high: float, stream: Stream) -> Tensor:
    """clamp(stochastic round(x * inverse), low, high) * step for a dense x [n, ...] on the CPU, laid out like x."""
    last = x.dim() == 4 and not x.is_contiguous()
    out = torch.empty_like(x)
    source, target = in_memory_order(x), in_memory_order(out)
    n = x.shape[0] if x.dim() else 1
    size = x.numel() // n
    key = signed_word(stream.key)
    scratch = _Scratch(min(TILE, x.numel()), x.dtype)
    if not last and stream.rows is None:  # logical order is memory order
        base = row_indices((TILE,), False, x.device).view(-1)
        for start in range(0, x.numel(), TILE):
            length = min(TILE, x.numel() - start)
            torch.add(base[:length], signed_word(start & _WORD), out=scratch.word[:length])
            scratch.round(source, target, start, length, key, inverse, step, low, high)
        return out
    inner = row_indices(tuple(x.shape[1:]), last, x.device)
    inner = in_memory_order(inner)
    rows = torch.arange(n) if stream.rows is None else stream.rows
    starts = (rows * size).to(torch.int32).view(-1, 1)
    whole = max(1, TILE // size)  # rows a tile
    for row in range(0, n, whole):
        for column in range(0, size, TILE):
            part = inner[column : column + TILE]
            count = min(whole, n - row)
            length = count * len(part)
            torch.add(starts[row : row + count], part, out=scratch.word[:length].view(count, -1))
            scratch.round(source, target, row * size + column, length, key, inverse, step, low, high)
    return out


def round_in_tiles(x: Tensor, rounding: str, stream: Stream | None) -> Tensor:
    """`round_to_integer`; stochastic rounding of what lies dense on the CPU in tiles, of the same bits."""
    if rounding == "stochastic" and stream is not None and x.numel() > 1 and x.device.type == "cpu" and is_dense(x):
        return quantize_tiled(x, 1.0, 1.0, -math.inf, math.inf, stream)
    return round_to_integer(x, rounding, stream)


class _Scratch:
    """What one tile needs: the hash's words, and the numbers being rounded."""

    def __init__(self, length: int, dtype: torch.dtype) -> None:
        self.word = torch.empty(length, dtype=torch.int32)
        self.shifted = torch.empty(length, dtype=torch.int32)
        self.noise, self.whole, self.part = (torch.empty(length, dtype=dtype) for _ in range(3))

    def round(self, source: Tensor, target: Tensor, start: int, length: int, key: int, inverse: float, step: float,
              low: float, high: float) -> None:  # fmt: skip
        """Round source[start : start + length] into target; the words hold the logical indices."""
        word, shifted = self.word[:length], self.shifted[:length]
        word.bitwise_xor_(key)
        for shift, multiplier in zip(MIX_SHIFTS, (*MIX_MULTIPLIERS, None), strict=True):
            torch.bitwise_right_shift(word, shift, out=shifted)  # arithmetic; the mask makes it logical
            word.bitwise_xor_(shifted.bitwise_and_(_WORD >> shift))
            if multiplier is not None:
                word.mul_(signed_word(multiplier))
        word.bitwise_right_shift_(32 - NOISE_BITS).bitwise_and_(_WORD >> (32 - NOISE_BITS))
        noise, whole, part = self.noise[:length], self.whole[:length], self.part[:length]
        noise.copy_(word)
        out = torch.mul(source[start : start + length], inverse, out=target[start : start + length])
        torch.abs(out, out=part)
        torch.floor(part, out=whole)
        part.sub_(whole).mul_(float(1 << NOISE_BITS))
        whole.add_(torch.lt(noise, part, out=noise)).copysign_(out)
        torch.mul(whole.clamp_(low, high), step, out=out)
