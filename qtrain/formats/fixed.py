"""Fixed point with a power-of-two scale: integer code x 2^exponent, carried exactly by floats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from qtrain.formats.noise import Stream
from qtrain.formats.rounding import round_to_integer
from qtrain.formats.tiled import in_memory_order, is_dense, nearest_tiled, quantize_tiled

CARRIER_BITS = {torch.float32: 24, torch.float64: 53}
"""Integers up to 2^bits are exact in the dtype (IEEE 754)."""


def carrier_dtype(bits: int) -> torch.dtype:
    """The float that carries sums of products at this width: float32 up to 8 bits (each layer certifies its sums),
    float64 above (a 16 x 16-bit product alone has 32 bits)."""
    return torch.float32 if bits <= 8 else torch.float64


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """`bits` wide codes. Signed codes are symmetric, -(2^(b-1) - 1) .. 2^(b-1) - 1, so that negation is exact;
    unsigned ones 0 .. 2^b - 1."""

    bits: int
    signed: bool = True

    @property
    def max_code(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    @property
    def min_code(self) -> int:
        return -self.max_code if self.signed else 0

    def exponent_for(self, amax: float) -> int:
        """The smallest exponent e with max_code * 2^e >= amax (exact: no logarithm is taken)."""
        if not math.isfinite(amax):
            raise ValueError(f"no exponent holds {amax}")
        mantissa, power = math.frexp(amax)  # amax = mantissa 2^power, mantissa in [1/2, 1)
        if mantissa == 0.0:
            return MIN_EXPONENT
        width = self.max_code.bit_length()
        exponent = power - width
        fits = math.ldexp(mantissa, width) <= self.max_code
        return max(exponent if fits else exponent + 1, MIN_EXPONENT)

    def codes(self, x: Tensor, exponent: int, rounding: str = "nearest-even", stream: Stream | None = None) -> Tensor:
        """Integer codes of `x` as floats in its dtype and shape; values outside the range saturate."""
        scaled = round_to_integer(x * math.ldexp(1.0, -exponent), rounding, stream)
        return scaled.clamp_(self.min_code, self.max_code)

    def quantize(
        self, x: Tensor, exponent: int, rounding: str = "nearest-even", stream: Stream | None = None
    ) -> Tensor:
        """The nearest representable values by `rounding`: codes x 2^exponent, same shape and dtype as `x`."""
        return self.quantize_seen(x, exponent, rounding, stream)[0]

    def quantize_seen(
        self, x: Tensor, exponent: int, rounding: str, stream: Stream | None, plus: Tensor | None = None
    ) -> tuple[Tensor, float | None]:
        """x (+ plus) quantized, and what `largest` is of it where that was found on the way."""
        if x.numel() > 1 and x.is_cpu and is_dense(x):
            grid = math.ldexp(1.0, -exponent), math.ldexp(1.0, exponent), self.min_code, self.max_code
            if plus is not None and plus.stride() != x.stride():
                plus = torch.empty_like(x).copy_(plus)
            if rounding == "stochastic" and stream is not None:
                return quantize_tiled(x, *grid, stream, plus)
            if rounding == "nearest-even":
                return nearest_tiled(x, *grid, plus)
        x = x if plus is None else x + plus
        return self.codes(x, exponent, rounding, stream).mul_(math.ldexp(1.0, exponent)), None

    def largest(self, x: Tensor) -> float:
        """The largest magnitude in x, which is not empty; of unsigned numbers the largest positive one, or 0."""
        x = in_memory_order(x)
        if not self.signed:
            return max(float(x.amax()), 0.0)
        low, high = torch.aminmax(x)
        return max(float(high), -float(low))


MIN_EXPONENT = -100
"""Codes x 2^-100 x 2^-24 are still normal float32 numbers (2^-126); smaller tensors are treated as zero."""


@dataclass(slots=True)
class FixedTensor:
    """A stored tensor: `values` = codes x 2^exponent. exponent None: plain float32 numbers."""

    values: Tensor
    exponent: int | None = None

    def codes(self) -> Tensor:
        """Integer codes, as floats."""
        if self.exponent is None:
            raise ValueError("a float tensor has no codes")
        return self.values * math.ldexp(1.0, -self.exponent)
