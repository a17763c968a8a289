"""Integer codes on a real scale, and fixed point with an exponent of its own: per tensor or per channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qtrain.formats.fixed import MIN_EXPONENT, FixedPoint
from qtrain.formats.integers import power_of_two
from qtrain.formats.noise import Stream
from qtrain.formats.rounding import round_to_integer

Scale = tuple[Tensor, Tensor]
"""Step and zero point, float64, broadcasting against the tensor."""


def extremes(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    """Minimum and maximum, float64: of the whole tensor, or of each slice along `axis` (kept as a dimension)."""
    wide = x.double()
    if axis is None:
        low, high = torch.aminmax(wide)
        return low, high
    others = [d for d in range(x.dim()) if d != axis]
    return wide.amin(others, keepdim=True), wide.amax(others, keepdim=True)


@dataclass(frozen=True, slots=True)
class ScaledInteger:
    """code x scale. Symmetric: codes -(2^(b-1)-1) .. 2^(b-1)-1 and scale amax / max_code. Affine: codes 0 .. 2^b - 1 on
    (code - zero) x scale, the range widened to hold 0, which stays exact (Jacob et al. 2018, section 2.1).
    `axis` gives every slice along it (a channel) its own scale.

    A real scale per output channel can't be used where one sum mixes output channels, as the input error's does.
    """

    bits: int
    affine: bool = False
    axis: int | None = None

    @property
    def codes_range(self) -> tuple[int, int]:
        top = 2 ** (self.bits - 1) - 1
        return (0, 2**self.bits - 1) if self.affine else (-top, top)

    def scale_for(self, x: Tensor) -> Scale:
        low, high = extremes(x, self.axis)
        if not self.affine:
            step = torch.maximum(high, -low) / self.codes_range[1]
            return torch.where(step > 0, step, 1.0), torch.zeros_like(step)
        low, high = low.clamp(max=0.0), high.clamp(min=0.0)
        step = (high - low) / self.codes_range[1]
        step = torch.where(step > 0, step, 1.0)
        return step, torch.round(-low / step)

    def limits(self, scale: Scale) -> tuple[Tensor, Tensor]:
        step, zero = scale
        low, high = self.codes_range
        return (low - zero) * step, (high - zero) * step

    def quantize(
        self, x: Tensor, rounding: str = "nearest-even", stream: Stream | None = None, scale: Scale | None = None
    ) -> Tensor:
        step, zero = self.scale_for(x) if scale is None else scale
        low, high = self.codes_range
        near = x.double() / step
        whole = near.round()
        rounded = (near - whole).abs() <= near.abs() * 2.0**-22  # a grid value stored in float32 is a grid value
        near = torch.where(rounded, whole, near)
        codes = round_to_integer(near, rounding, stream) + zero
        return ((codes.clamp(low, high) - zero) * step).to(x.dtype)


@dataclass(frozen=True, slots=True)
class OwnFixedPoint:
    """Fixed point whose exponent is the tensor's own (or each slice's along `axis`): `FixedPoint` and its rule."""

    bits: int
    axis: int | None = None

    def scale_for(self, x: Tensor) -> Tensor:
        """Exponents, int64."""
        low, high = extremes(x, self.axis)
        peak = torch.maximum(high, -low)
        codes = FixedPoint(self.bits)
        exponents = [codes.exponent_for(v) if v else MIN_EXPONENT for v in peak.flatten().tolist()]
        return torch.tensor(exponents).view(peak.shape)

    def limits(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        top = FixedPoint(self.bits).max_code * power_of_two(scale)
        return -top, top

    def quantize(
        self, x: Tensor, rounding: str = "nearest-even", stream: Stream | None = None, scale: Tensor | None = None
    ) -> Tensor:
        exponent = self.scale_for(x) if scale is None else scale
        top = FixedPoint(self.bits).max_code
        codes = round_to_integer(x.double() * power_of_two(-exponent), rounding, stream)
        return (codes.clamp_(-top, top) * power_of_two(exponent)).to(x.dtype)
