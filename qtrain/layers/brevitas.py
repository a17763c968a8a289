"""The forward quantizers as Brevitas quantizers: Brevitas rounds and clamps, qtrain holds the exponent.

Importing this module imports Brevitas (about 3 s), so it is imported when a network is built with them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from brevitas.inject.enum import FloatToIntImplType, ScalingImplType
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from torch import Tensor, nn

from qtrain import engine
from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream
from qtrain.layers.quantizer import NEAREST, Quantizer


class HeldScale(nn.Module):
    """A Brevitas scaling_impl: the scale 2^exponent out of a buffer, whatever the tensor; no gradient goes through."""

    value: Tensor

    def __init__(self, exponent: int = 0) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(math.ldexp(1.0, exponent)))

    def hold(self, exponent: int) -> None:
        """Quantize with scale 2^exponent from now on."""
        self.value.fill_(math.ldexp(1.0, exponent))

    def forward(self, x: Tensor, threshold: Tensor | None = None) -> Tensor:
        return self.value


class FixedPointWeight(Int8WeightPerTensorFixedPoint):
    """Weights: signed, symmetric (narrow) codes, half to even; `bit_width` and `exponent` may be overridden."""

    scaling_impl = HeldScale
    scaling_impl_type = ScalingImplType.CONST
    float_to_int_impl_type = FloatToIntImplType.ROUND
    bit_width = 8
    exponent = 0


class SignedFixedPoint(Int8ActPerTensorFixedPoint):
    """Images, logits, sums and normalization inputs: signed, symmetric codes."""

    narrow_range = True
    scaling_impl = HeldScale
    scaling_impl_type = ScalingImplType.CONST
    float_to_int_impl_type = FloatToIntImplType.ROUND
    bit_width = 8
    exponent = 0


class UnsignedFixedPoint(Uint8ActPerTensorFixedPoint):
    """What a ReLU leaves: codes 0 .. 2^bits - 1."""

    scaling_impl = HeldScale
    scaling_impl_type = ScalingImplType.CONST
    float_to_int_impl_type = FloatToIntImplType.ROUND
    bit_width = 8
    exponent = 0


def injector(fmt: FixedPoint, role: str) -> Any:
    """The Brevitas quantizer class of a format in a role ("weight" or "output")."""
    if role == "weight":
        return FixedPointWeight
    return SignedFixedPoint if fmt.signed else UnsignedFixedPoint


class BrevitasQuantizer(Quantizer):
    """A quantization point of the forward pass: qtrain's exponent, Brevitas' values; rounds half to even."""

    def __init__(self, fmt: FixedPoint, scale: str, stream_id: int, name: str, role: str) -> None:
        super().__init__(fmt, NEAREST, scale, stream_id, name)
        # float64: Brevitas takes the codes' limits from a tensor of this dtype
        chosen = injector(fmt, role).let(bit_width=fmt.bits, dtype=torch.float64, device=None)
        self.tensor_quant = chosen.tensor_quant

    def _round(self, x: Tensor, exponent: int, stream: Stream | None) -> Tensor:
        if engine.active() != "brevitas":  # the same bits without Brevitas' overhead
            return super()._round(x, exponent, stream)
        self.tensor_quant.scaling_impl.hold(exponent)
        values, *_ = self.tensor_quant(x)
        return values
