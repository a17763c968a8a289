"""Weights with an exponent for each output channel, and how they meet in the input error's sums over those channels.

Codes of channel k are multiples of 2^exponents[k]. A forward sum and a weight gradient know one output channel only; a
sum of the input error runs over all of a group, so that its terms are shifted to the group's smallest exponent, which
asks the accumulator for up to ALIGNMENT_BITS more (ARITHMETIC.md, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwmodel.operations import ALIGNMENT_BITS
from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.integers import power_of_two
from qtrain.formats.noise import Stream
from qtrain.formats.scaled import OwnFixedPoint
from qtrain.layers.quantizer import Clock, Quantizer


@dataclass(slots=True)
class ChannelTensor(FixedTensor):
    """Weights [K, ...]: `values` = codes x 2^exponents of their output channel, int64 [K]; `exponent` is the smallest
    of them, a grid that all values lie on."""

    exponents: Tensor | None = None


def own_units(weight: FixedTensor) -> Tensor | float:
    """What a code stands for, of each output channel [K] or of all of them."""
    if isinstance(weight, ChannelTensor) and weight.exponents is not None:
        return power_of_two(weight.exponents)
    return math.ldexp(1.0, weight.exponent or 0)


def shared_units(weight: FixedTensor, groups: int) -> Tensor | float:
    """The grid on which the output channels of each group meet: [groups], or one of all."""
    if isinstance(weight, ChannelTensor) and weight.exponents is not None:
        return power_of_two(weight.exponents.view(groups, -1).amin(1))
    return math.ldexp(1.0, weight.exponent or 0)


class ChannelQuantizer(Quantizer):
    """The quantization point of weights with an exponent a channel: the smallest that holds the channel's own maximum,
    and at most ALIGNMENT_BITS below the largest channel's."""

    def __init__(self, fmt: FixedPoint, rounding: str, scale: str, stream_id: int, name: str) -> None:
        """Raises QtrainError for an exponent rule other than dynamic."""
        super().__init__(fmt, rounding, scale, stream_id, name)
        if scale != "dynamic":
            raise QtrainError(f"{name}: exponents per channel are dynamic; give weight_scale dynamic, not {scale}")

    def __call__(self, x: Tensor, clock: Clock, *_: Any, learn: bool = True, **__: Any) -> FixedTensor:
        fmt = OwnFixedPoint(self.format.bits, axis=0)
        exponents = fmt.scale_for(x)
        exponents = torch.maximum(exponents, exponents.max() - ALIGNMENT_BITS)
        common = self.observe(float(x.abs().amax()), learn)  # refuses numbers that are not finite
        stream = Stream(clock.seed, clock.step, self.stream_id) if self.rounding == "stochastic" else None
        values = fmt.quantize(x, self.rounding, stream, exponents)
        if self.monitor is not None:
            self.monitor.append(self._health(x, values, common))
        return self.stored(ChannelTensor(values, int(exponents.min()), exponents.flatten()))
