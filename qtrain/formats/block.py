"""Formats whose neighbours share a power-of-two scale: block floating point and the OCP Microscaling formats."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qtrain.formats.fixed import MIN_EXPONENT
from qtrain.formats.integers import power_of_two
from qtrain.formats.minifloat import Minifloat
from qtrain.formats.noise import Stream
from qtrain.formats.tiled import round_in_tiles

MX_BLOCK = 32
"""Elements that share a scale: OCP Microscaling Formats (MX) Specification, version 1.0, section 5.2."""
MX_SCALE_EXPONENTS = (-127, 127)
"""Range of the shared E8M0 scale (same, section 5.4.1)."""


def block_peaks(x: Tensor, size: int, axis: int) -> Tensor:
    """The largest magnitude of each block of `size` along `axis` (the last block may be shorter), float64, the axis
    last."""
    moved = x.abs().movedim(axis, -1)
    blocks = F.pad(moved, (0, -moved.shape[-1] % size)).unflatten(-1, (-1, size))
    return blocks.amax(-1).double()


def by_element(blocks: Tensor, size: int, axis: int, x: Tensor) -> Tensor:
    """What `block_peaks` has a value a block of, for every element of `x`."""
    spread = blocks.unsqueeze(-1).expand(*blocks.shape, size).flatten(-2)
    return spread[..., : x.shape[axis]].movedim(-1, axis)


def floor_log2(x: Tensor) -> Tensor:
    """floor(log2 x) of positive numbers, exactly; a very small number for 0."""
    return torch.where(x > 0, torch.frexp(x).exponent.long() - 1, -1000)


@dataclass(frozen=True, slots=True)
class BlockFloat:
    """Signed `bits`-wide codes and one exponent per block: the smallest with max_code 2^e >= the block's maximum, as in
    fixed point. Blocks of `block` elements lie along `axis` (default 1: channels, as products run)."""

    bits: int
    block: int = 16
    axis: int = 1

    @property
    def max_code(self) -> int:
        return 2 ** (self.bits - 1) - 1

    def scale_for(self, x: Tensor) -> Tensor:
        """The exponent of every element, int64."""
        return by_element(self._exponents(x), self.block, min(self.axis, x.dim() - 1), x)

    def _exponents(self, x: Tensor) -> Tensor:
        peak = block_peaks(x, self.block, min(self.axis, x.dim() - 1))
        exponent = floor_log2(peak) + 1 - self.max_code.bit_length()
        exponent = exponent.clamp(min=MIN_EXPONENT)
        return exponent + (peak > self.max_code * power_of_two(exponent)).long()

    def limits(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        top = self.max_code * power_of_two(scale)
        return -top, top

    def quantize(
        self, x: Tensor, rounding: str = "nearest-even", stream: Stream | None = None, scale: Tensor | None = None
    ) -> Tensor:
        step = _steps(self, x) if scale is None else power_of_two(scale).to(x.dtype)
        codes = round_in_tiles(x / step, rounding, stream)
        return codes.clamp_(-self.max_code, self.max_code).mul_(step)


@dataclass(frozen=True, slots=True)
class Microscaling:
    """An OCP MX format: blocks of 32 elements, each a minifloat or (None) an int8 with 6 fraction bits, times a shared
    power of two: 2^(floor(log2 of the block's maximum) - largest exponent of the element) (specification, section 6.3).

    mxint8 is used symmetrically, -127/64 .. 127/64.
    """

    element: Minifloat | None
    block: int = MX_BLOCK
    axis: int = 1

    @property
    def bits(self) -> int:
        return 8 if self.element is None else self.element.bits

    def scale_for(self, x: Tensor) -> Tensor:
        """The shared exponent of every element, int64."""
        return by_element(self._exponents(x), self.block, min(self.axis, x.dim() - 1), x)

    def _exponents(self, x: Tensor) -> Tensor:
        peak = block_peaks(x, self.block, min(self.axis, x.dim() - 1))
        top = 0 if self.element is None else self.element.max_exponent
        return (floor_log2(peak) - top).clamp(*MX_SCALE_EXPONENTS)

    def limits(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        top = (127 / 64 if self.element is None else self.element.max_value) * power_of_two(scale)
        return -top, top

    def quantize(
        self, x: Tensor, rounding: str = "nearest-even", stream: Stream | None = None, scale: Tensor | None = None
    ) -> Tensor:
        step = _steps(self, x) if scale is None else power_of_two(scale).to(x.dtype)
        scaled = x / step
        if self.element is None:
            codes = round_in_tiles(scaled.mul_(64), rounding, stream).clamp_(-127, 127).div_(64)
        else:
            codes = self.element.quantize(scaled, rounding, stream)
        return codes.mul_(step)


def _steps(fmt: BlockFloat | Microscaling, x: Tensor) -> Tensor:
    """2^exponent of every element's block, in the dtype of `x`, which represents it exactly."""
    steps = power_of_two(fmt._exponents(x)).to(x.dtype)
    return by_element(steps, fmt.block, min(fmt.axis, x.dim() - 1), x)
