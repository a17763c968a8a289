"""The forward quantizers as Brevitas quantizers: Brevitas rounds and clamps, qtrain holds the exponent.

Importing this module imports Brevitas (about 3 s), so that is done where they are used.
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

from qtrain.formats.fixed import FixedPoint


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


def tensor_quantizer(fmt: FixedPoint, role: str) -> Any:
    """The Brevitas module that rounds tensors of a role ("weight" or "output") to `fmt`; exponent 0 until told."""
    chosen: Any = FixedPointWeight if role == "weight" else SignedFixedPoint if fmt.signed else UnsignedFixedPoint
    # float64: Brevitas takes the codes' limits from a tensor of this dtype
    return chosen.let(bit_width=fmt.bits, dtype=torch.float64, device=None).tensor_quant
