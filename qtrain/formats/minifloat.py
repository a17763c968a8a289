"""Small floating-point numbers: sign, exponent, mantissa; subnormals; values beyond the largest saturate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qtrain.formats.fixed import MIN_EXPONENT
from qtrain.formats.integers import power_of_two
from qtrain.formats.noise import Stream
from qtrain.formats.tiled import round_in_tiles

SPECIALS = ("ieee", "fn", "finite")


@dataclass(frozen=True, slots=True)
class Minifloat:
    """1 sign bit, `exponent_bits` (bias 2^(n-1) - 1) and `mantissa_bits`.

    specials: ieee keeps the highest exponent for infinities and NaN (E5M2, float16, bfloat16); fn only its all-ones
    mantissa for NaN (E4M3 of the OCP 8-bit floating point specification, revision 1.0, table 1); finite nothing (the
    6- and 4-bit elements of OCP Microscaling Formats, version 1.0, section 5.3).
    """

    exponent_bits: int
    mantissa_bits: int
    specials: str = "ieee"

    def __post_init__(self) -> None:
        if self.specials not in SPECIALS:
            raise ValueError(f"unknown specials {self.specials!r} (valid: {', '.join(SPECIALS)})")
        if not (1 + (self.specials == "ieee") <= self.exponent_bits <= 8 and 0 <= self.mantissa_bits <= 23):
            raise ValueError(f"no minifloat has {self.exponent_bits} exponent and {self.mantissa_bits} mantissa bits")

    signed: ClassVar[bool] = True

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal number."""
        return 2 - 2 ** (self.exponent_bits - 1)

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest number."""
        top = 2 ** (self.exponent_bits - 1) - (self.specials == "ieee")
        lonely_nan = self.specials == "fn" and self.mantissa_bits == 0
        return top - lonely_nan

    @property
    def max_value(self) -> float:
        """The largest number."""
        ones = 2 ** (self.mantissa_bits + 1) - 1
        taken = self.specials == "fn" and self.mantissa_bits > 0  # its all-ones mantissa is the NaN
        return math.ldexp(ones - taken, self.max_exponent - self.mantissa_bits)

    def scale_for(self, x: Tensor) -> None:
        return None

    def exponent_for(self, amax: float) -> int:
        """The smallest e, at least MIN_EXPONENT, with max_value * 2^e >= amax: a tensor's scale (Micikevicius et al.
        2022, "FP8 Formats for Deep Learning", section 4). 0 for an exponent as wide as float32's, which needs none."""
        if self.exponent_bits == FLOAT32.exponent_bits:
            return 0
        mantissa, power = math.frexp(amax)
        top, width = math.frexp(self.max_value)
        return max(power - width + (mantissa > top), MIN_EXPONENT) if mantissa else MIN_EXPONENT

    def limits(self, scale: int | None = None) -> tuple[Tensor, Tensor]:
        top = torch.tensor(math.ldexp(self.max_value, scale or 0), dtype=torch.float64)
        return -top, top

    def quantize(
        self, x: Tensor, rounding: str = "nearest-even", stream: Stream | None = None, scale: int | None = None
    ) -> Tensor:
        """Every element rounded in units of its binade's step; the grid lies at 2^scale (None: 1)."""
        shift = scale or 0
        low, high = self.min_exponent + shift, self.max_exponent + shift
        top = math.ldexp(self.max_value, shift)
        if x.dtype == torch.float32 and low - self.mantissa_bits >= _NORMAL and high <= -_NORMAL:
            step = _float32_binades(x, low, high, self.mantissa_bits)
            return round_in_tiles(x / step, rounding, stream).mul_(step).clamp_(-top, top)
        wide = x.double()
        exponent = torch.frexp(wide).exponent.long() - 1  # |x| in [2^e, 2^(e+1))
        exponent = exponent.clamp(low, high) - self.mantissa_bits
        codes = round_in_tiles(wide * power_of_two(-exponent), rounding, stream)
        return (codes * power_of_two(exponent)).clamp_(-top, top).to(x.dtype)


_NORMAL = -126
"""Exponent of float32's smallest normal number."""


def _float32_binades(x: Tensor, low: int, high: int, mantissa_bits: int) -> Tensor:
    """2^(e - mantissa_bits) for the binade e of every element, held to low .. high, out of float32's own exponent."""
    bits = x.view(torch.int32).bitwise_and(0x7F800000)
    bits.clamp_((low + 127) << 23, (high + 127) << 23).sub_(mantissa_bits << 23)
    return bits.view(torch.float32)


E4M3 = Minifloat(4, 3, "fn")
E5M2 = Minifloat(5, 2)
E3M2 = Minifloat(3, 2, "finite")
E2M3 = Minifloat(2, 3, "finite")
E2M1 = Minifloat(2, 1, "finite")
FLOAT16 = Minifloat(5, 10)
BFLOAT16 = Minifloat(8, 7)
FLOAT32 = Minifloat(8, 23)
