"""The integers a normalization works with, per channel (or instance and channel): int64 tensors, multiplied once an
element.

Forward y = (A a + B) 2^grid with |A| < 2^15, |B| < 2^23: at 8-bit codes the multiply-add fits 24 bits. Backward
dx = (P g + Q a + R) 2^grid with |P| <= 2^14, |Q| <= 2^15, |R| <= 2^22. ARITHMETIC.md defines every rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qtrain.formats.fixed import CARRIER_BITS, FixedTensor
from qtrain.formats.integers import bit_length, divide_round, normalize, power_of_two, shift_round

GAIN_BITS, SLOPE_BITS, OFFSET_BITS = 14, 15, 22
"""Bits of P, Q and R."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Constants of each channel, int64 [C], or [n, C] where every instance has its own: mean m8 2^-8, and
    1/deviation = root 2^root_exponent, in units of the input's step; n elements each."""

    m8: Tensor
    root: Tensor
    root_exponent: Tensor
    n: int
    batch: bool  # statistics of what is normalized (the error flows through them) or running ones


@dataclass(frozen=True, slots=True)
class Scaled:
    """Integers x 2^exponent, element by element."""

    codes: Tensor
    exponent: Tensor

    @classmethod
    def narrow(cls, codes: Tensor, exponent: Tensor | int, bits: int) -> Scaled:
        """codes 2^exponent with at most `bits` of mantissa."""
        mantissa, lift = normalize(codes, bits)
        return cls(mantissa, lift + exponent)


def affine(channel: Channel, scale: FixedTensor, shift: FixedTensor) -> tuple[Tensor, Tensor, Tensor]:
    """(A, B, grid): y = (A a + B) 2^grid, with A = gamma r and B = beta - m A."""
    assert scale.exponent is not None
    assert shift.exponent is not None
    product = scale.codes().long() * channel.root
    exponent = scale.exponent + channel.root_exponent
    beta = shift_round(shift.codes().long(), (exponent - 8 - shift.exponent).clamp(-46, 62))
    offset = beta - channel.m8 * product  # 8 more fraction bits than the product
    down = torch.maximum(bit_length(product) - 15, bit_length(offset) - 8 - 23).clamp(min=0)
    return shift_round(product, down), shift_round(offset, down + 8), exponent + down


def gain_of(channel: Channel, scale: FixedTensor) -> Scaled:
    """gamma / deviation, 15 bits."""
    assert scale.exponent is not None
    return Scaled.narrow(scale.codes().long() * channel.root, channel.root_exponent + scale.exponent, 15)


def centring(channel: Channel, rest: Tensor, t1: Tensor, centred: Scaled) -> tuple[Scaled, Scaled]:
    """(Q, R) of the error that flows through mean and variance: rest (m k - T1 / n) - rest k a with
    k = centred / (n v); `centred` = sum g (a - m) of at most 30 bits. Exponents are relative to `rest`."""
    square = shift_round(channel.root * channel.root, 16)  # r^2 to 17 bits
    k = Scaled.narrow(
        divide_round(centred.codes * square, channel.n), centred.exponent + 16 + 2 * channel.root_exponent, 15
    )
    mean_error = divide_round(t1 << 16, channel.n)  # T1 / n, 16 fraction bits
    moved = channel.m8 * k.codes  # 8 fraction bits more than k
    common = torch.maximum(k.exponent - 8, torch.full_like(k.exponent, -16))
    inner = shift_round(moved, common - (k.exponent - 8)) - shift_round(mean_error, common + 16)
    return Scaled(-rest * k.codes, k.exponent), Scaled(rest * inner, common)


def on_common_grid(gain: Scaled, terms: Sequence[tuple[Scaled, int]]) -> tuple[Tensor, list[Tensor], Tensor]:
    """(P, the terms, grid): all in units of 2^grid, P of GAIN_BITS and each term, whose exponent is relative to the
    gain's, of its own bits."""
    needed = [bit_length(gain.codes) - GAIN_BITS]
    needed += [torch.where(t.codes != 0, bit_length(t.codes) - bits + t.exponent, -64) for t, bits in terms]
    grid = torch.stack(needed).amax(0).clamp(min=-8)  # finer grids would add no bits to P
    moved = [shift_round(t.codes, (grid - t.exponent).clamp(max=62)) for t, _ in terms]
    return shift_round(gain.codes, grid), moved, grid + gain.exponent


def on_grid(x: Tensor, exponent: Tensor, like: Tensor) -> Tensor:
    """x 2^exponent ([C] or [n, C]) in the dtype of `like` [n, C, ...] and broadcast over it, exact: |x| < 2^24."""
    values = (x.double() * power_of_two(exponent)).to(like.dtype)
    return values.view(-1 if x.dim() > 1 else 1, x.shape[-1], *([1] * (like.dim() - 2)))


def instance_sums(x: Tensor, factors: int) -> Tensor:
    """Sums over the pixels of integers [n, C, ...], float64 [n, C], each the product of so many codes of the carrier's
    width: rows or whole planes in the carrier where that is exact, the rest in float64."""
    room = CARRIER_BITS[x.dtype] - factors * (7 if x.dtype == torch.float32 else 15)
    for dims in ((2, 3), (3,)):
        if x.dim() == 4 and math.prod(x.shape[d] for d in dims) <= 2**room:
            x = x.sum(dims)
    return x.double().sum(list(range(2, x.dim()))) if x.dim() > 2 else x.double()


def channel_sums(x: Tensor, factors: int) -> Tensor:
    """The same over instances, too: int64 [C]."""
    return instance_sums(x, factors).sum(0).long()
