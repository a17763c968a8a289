"""What every normalization does alike: one multiply-add an element, gradients of scale and shift, its activation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.formats.integers import power_of_two
from qtrain.layers.mac import Rounder
from qtrain.layers.norms.constants import Channel, Scaled, affine, on_grid
from qtrain.layers.pointwise import activate, through_activation
from qtrain.layers.tape import Tape


@dataclass(frozen=True, slots=True)
class NormQuantizers:
    """The quantization points of one normalization."""

    scale: Rounder
    shift: Rounder
    output: Rounder
    error: Rounder
    scale_gradient: Rounder
    shift_gradient: Rounder


class NormUnit(ABC):
    """A normalization in fixed point with its activation; subclasses say where mean and deviation come from.

    `module` holds weight (scale), bias (shift), eps and, where there are any, running statistics.
    """

    def __init__(self, layer: Layer, module: Any, q: NormQuantizers) -> None:
        self.name, self.layer, self.module, self.q = layer.name, layer, module, q
        self.trains = "all"

    @abstractmethod
    def statistics(self, a: Tensor, exponent: int, tape: Tape) -> Channel:
        """Constants of the codes `a` [n, C, ...] of step 2^exponent; running statistics move where `tape` trains."""

    @abstractmethod
    def sums(self, g: Tensor, a: Tensor, channel: Channel) -> tuple[Tensor, Tensor]:
        """(T1, centred): sum g and 2^8 sum g (a - m), int64 in the shape of the channel's constants."""

    @abstractmethod
    def slope(self, centred: Tensor, channel: Channel) -> Tensor:
        """Gradient of the scale in units of the error's step, float64 [C]."""

    @abstractmethod
    def input_error(
        self, g: Tensor, a: Tensor, channel: Channel, scale: FixedTensor, sums: tuple[Tensor, Tensor], lift: int
    ) -> Tensor:
        """dx before rounding, [n, C, ...]; 2^lift is the error's step over the input's."""

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        """x: stored codes of the convolution's output, [n, C, H, W] or [n, C]."""
        assert x.exponent is not None
        a = x.codes()
        channel = self.statistics(a, x.exponent, tape)
        scale, shift = self.parameters(tape)
        gain, offset, grid = affine(channel, scale, shift)
        y = torch.addcmul(on_grid(offset, grid, a), on_grid(gain, grid, a), a)
        out = activate(y, self.layer.activation, self.q.output, tape)
        tape.save(self.name, (a, out.values), x.exponent, channel, scale)
        return out

    def parameters(self, tape: Tape) -> tuple[FixedTensor, FixedTensor]:
        """Scale and shift as they compute, float64 [C]."""
        weight, bias = self.module.weight.detach().double(), self.module.bias.detach().double()
        learn = tape.training
        return self.q.scale(weight, tape.clock, learn=learn), self.q.shift(bias, tape.clock, learn=learn)

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        a, out, exponent, channel, scale = tape.take(self.name)
        assert error.exponent is not None
        g = error.codes().to(a.dtype)
        if self.layer.activation != "none":
            g = through_activation(g, out, self.layer.activation)
        channel = self.going_back(channel, tape)
        sums = self.sums(g, a, channel)
        if self.trains != "none":
            unit = 2.0**error.exponent
            shift_gradient = sums[0].view(-1, self.layer.in_channels).sum(0).double()
            self.store_gradients(self.slope(sums[1], channel) * unit, shift_gradient * unit, tape)
        if not needed:
            return (None,)
        dx = self.input_error(g, a, channel, scale, sums, error.exponent - exponent)
        return (self.q.error(dx, tape.clock, tape.rows),)

    def epsilon(self, exponent: int) -> int:
        """The module's eps with 16 fraction bits, in units of 2^exponent."""
        return min(max(1, round(self.module.eps * 2.0 ** (16 - exponent))), 1 << 50)

    def going_back(self, channel: Channel, tape: Tape) -> Channel:
        """The constants of the instances that go back; those of a channel are of all."""
        return channel

    def store_gradients(self, slope: Tensor, offset: Tensor, tape: Tape) -> None:
        """Quantize the gradients of scale and shift, float64 [C], and add them to `.grad`."""
        pairs = [(self.module.bias, offset, self.q.shift_gradient)]
        if self.trains == "all":
            pairs.append((self.module.weight, slope, self.q.scale_gradient))
        for parameter, gradient, quantizer in pairs:
            values = quantizer(gradient, tape.clock).values.to(parameter.dtype)
            parameter.grad = values if parameter.grad is None else parameter.grad + values


def slope_terms(centred: Tensor, channel: Channel) -> Scaled:
    """sum g (a - m) / deviation: at most 47 bits."""
    narrow = Scaled.narrow(centred, -8, 30)
    return Scaled(narrow.codes * channel.root, narrow.exponent + channel.root_exponent)


def real(x: Scaled) -> Tensor:
    """Its values in float64, exact up to 53 bits."""
    return x.codes.double() * power_of_two(x.exponent)
