"""Integer arithmetic on int64 tensors: what a device does once a channel with 64-bit integers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MAX_POWER = 512
_POWERS = torch.tensor([math.ldexp(1.0, e) for e in range(-_MAX_POWER, _MAX_POWER + 1)], dtype=torch.float64)


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float64, exactly (the library's exp2 and pow may be off by a bit)."""
    return _POWERS.to(exponent.device)[exponent + _MAX_POWER]


def shift_round(x: Tensor, shift: Tensor | int) -> Tensor:
    """x * 2^-shift, halves rounded towards plus infinity: (x + 2^(shift-1)) >> shift; left for a negative shift."""
    shift = torch.as_tensor(shift, dtype=torch.int64, device=x.device)
    right = shift.clamp(min=0)
    half = torch.bitwise_left_shift(1, right - 1)  # PyTorch shifts by a negative number to zero
    return ((x + half) >> right) << (-shift).clamp(min=0)


def divide_round(x: Tensor, divisor: Tensor | int) -> Tensor:
    """x / divisor for a positive divisor, halves rounded towards plus infinity: floor((2x + d) / (2d))."""
    return torch.div(2 * x + divisor, 2 * divisor, rounding_mode="floor")


def bit_length(x: Tensor) -> Tensor:
    """Bits of |x| (0 for 0)."""
    magnitude = x.abs()
    high = magnitude >> 31
    part = torch.where(high > 0, high, magnitude)  # below 2^32: exact in float64
    return torch.frexp(part.double()).exponent.long() + 31 * (high > 0)


def isqrt(x: Tensor) -> Tensor:
    """floor(sqrt(x)) for 0 <= x < 2^52: float64's correctly rounded root cannot reach the next integer there."""
    return x.double().sqrt().floor().long()


def normalize(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """x as (mantissa, exponent) with |mantissa| <= 2^bits: x ~ mantissa * 2^exponent, exact when x is that narrow."""
    exponent = (bit_length(x) - bits).clamp(min=0)
    return shift_round(x, exponent), exponent


def inverse_sqrt(variance: Tensor) -> tuple[Tensor, Tensor]:
    """1 / sqrt(v) for integers v >= 1 as (r, e): r * 2^e with a 16-bit r in (2^15, 2^16].

    v is brought to v' = v 2^s in [2^30, 2^32) by an even s; r = isqrt(floor(2^62 / v')), e = s/2 - 31.
    """
    shift = 32 - bit_length(variance)
    shift = shift - shift % 2  # even, and v' stays below 2^32
    scaled = torch.where(shift >= 0, variance << shift.clamp(min=0), variance >> (-shift).clamp(min=0))
    root = isqrt(torch.div(torch.full_like(scaled, 1 << 62), scaled, rounding_mode="floor"))
    return root, shift // 2 - 31


def reciprocal(x: Tensor) -> tuple[Tensor, Tensor]:
    """1 / x for integers 1 <= x < 2^62 as (r, e): r * 2^e with a 16-bit r in (2^15, 2^16].

    x is brought to x' = x 2^s in [2^30, 2^31); r = floor(2^46 / x'), e = s - 46.
    """
    shift = 31 - bit_length(x)
    scaled = torch.where(shift >= 0, x << shift.clamp(min=0), x >> (-shift).clamp(min=0))
    return torch.div(torch.full_like(scaled, 1 << 46), scaled, rounding_mode="floor"), shift - 46
