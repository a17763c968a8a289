"""Integer arithmetic on int64 tensors: what a device does once a channel with 64-bit integers."""

from __future__ import annotations

import torch
from torch import Tensor

_BIAS, _FRACTION_BITS = 1023, 52  # of float64 (IEEE 754)


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float64 for -1022 <= exponent <= 1023, exactly (the library's exp2 and pow may be off by a bit)."""
    return (exponent.long() + _BIAS << _FRACTION_BITS).view(torch.float64)


def shift_round(x: Tensor, shift: Tensor | int) -> Tensor:
    """x * 2^-shift, halves rounded towards plus infinity: (x + 2^(shift-1)) >> shift; left for a negative shift."""
    if isinstance(shift, int):
        return x + (1 << shift >> 1) >> shift if shift > 0 else x << -shift
    right = shift.clamp(min=0)
    return _shift_right(x, right) << right - shift


def _shift_right(x: Tensor, shift: Tensor) -> Tensor:
    """`shift_round` for shifts that are not negative."""
    half = torch.bitwise_left_shift(1, shift - 1)  # PyTorch shifts by a negative number to zero
    return x + half >> shift


def divide_round(x: Tensor, divisor: Tensor | int) -> Tensor:
    """x / divisor for a positive divisor, halves rounded towards plus infinity: floor((2x + d) / (2d))."""
    return torch.div(2 * x + divisor, 2 * divisor, rounding_mode="floor")


def bit_length(x: Tensor) -> Tensor:
    """Bits of |x| (0 for 0)."""
    magnitude = x.abs()
    magnitude ^= magnitude & magnitude >> 1  # keeps the top bit and clears the next: float64 can't round up past it
    return torch.frexp(magnitude.double()).exponent.long()


def isqrt(x: Tensor) -> Tensor:
    """floor(sqrt(x)) for 0 <= x < 2^52: float64's correctly rounded root cannot reach the next integer there."""
    return x.double().sqrt().floor().long()


def normalize(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """x as (mantissa, exponent) with |mantissa| <= 2^bits: x ~ mantissa * 2^exponent, exact when x is that narrow."""
    exponent = (bit_length(x) - bits).clamp(min=0)
    return _shift_right(x, exponent), exponent


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
