"""The noise of stochastic rounding: a hash of where a number stands, never a generator's state.

u = top 24 bits of mix(index XOR key), key = mix(stream XOR mix(step XOR mix(seed))), all on 32-bit words.
mix is `lowbias32` (C. Wellons, hash-prospector: exact bias 0.174): x ^= x >> 16; x *= 0x7FEB352D; x ^= x >> 15;
x *= 0x846CA68B; x ^= x >> 16. `index` is the element's logical row-major index (NCHW) in the ungathered tensor, so the
bits are the same at any thread count, memory format and gather choice, and after a resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

MIX_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
MIX_SHIFTS = (16, 15, 16)
NOISE_BITS = 24
_WORD = 0xFFFFFFFF


def mix(x: int) -> int:
    """lowbias32 of one 32-bit word."""
    x &= _WORD
    x ^= x >> MIX_SHIFTS[0]
    x = x * MIX_MULTIPLIERS[0] & _WORD
    x ^= x >> MIX_SHIFTS[1]
    x = x * MIX_MULTIPLIERS[1] & _WORD
    return x ^ x >> MIX_SHIFTS[2]


@dataclass(frozen=True, slots=True)
class Stream:
    """Where a tensor's noise comes from.

    `rows` maps its first dimension to positions in the ungathered tensor (int64 [n]); None where nothing was gathered.
    """

    seed: int
    step: int
    stream_id: int
    rows: Tensor | None = None

    @property
    def key(self) -> int:
        """The 32-bit key of this seed, step and stream."""
        return mix(self.stream_id ^ step_key(self.seed, self.step))


@lru_cache(maxsize=64)
def step_key(seed: int, step: int) -> int:
    """The key of seed and step, into which every stream is mixed."""
    return mix(step ^ mix(seed))


def noise(shape: torch.Size, stream: Stream, like: Tensor) -> Tensor:
    """Integers 0 .. 2^24 - 1, uniform, as a float tensor of `shape` in the dtype and memory format of `like`."""
    if not shape:  # a single number, such as a learned scale
        return noise(torch.Size((1,)), stream, like).view(())
    channels_last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
    inner = row_indices(tuple(shape[1:]), channels_last, like.device)
    rows = torch.arange(shape[0], device=like.device) if stream.rows is None else stream.rows.to(like.device)
    starts = (rows * inner.numel()).to(torch.int32).view(-1, *([1] * (len(shape) - 1)))
    return _mix_tensor((starts + inner) ^ signed_word(stream.key)).to(like.dtype)


def _mix_tensor(x: Tensor) -> Tensor:
    """mix of every int32 element, in place; returns its top 24 bits."""
    for shift, multiplier in zip(MIX_SHIFTS, (*MIX_MULTIPLIERS, None), strict=True):
        x ^= (x >> shift) & (_WORD >> shift)  # torch shifts arithmetically; the mask makes it logical
        if multiplier is not None:
            x *= signed_word(multiplier)
    return (x >> (32 - NOISE_BITS)) & (_WORD >> (32 - NOISE_BITS))


def signed_word(word: int) -> int:
    """The 32-bit word as a two's complement int32."""
    return word - (1 << 32) if word >= 1 << 31 else word


@lru_cache(maxsize=256)
def row_indices(shape: tuple[int, ...], channels_last: bool, device: torch.device) -> Tensor:
    """int32 [1, *shape]: logical row-major index inside one row, laid out like the tensors it meets."""
    count = 1
    for size in shape:
        count *= size
    index = torch.arange(count, dtype=torch.int32, device=device).view(1, *shape)
    return index.contiguous(memory_format=torch.channels_last) if channels_last else index
