"""Convolution and linear layers: forward, input error and weight gradient, each in its own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.pointwise import activate, through_activation
from qtrain.layers.tape import Tape
from qtrain.pruners import Pruner

Rounder = Callable[..., FixedTensor]


@dataclass(frozen=True, slots=True)
class MacQuantizers:
    """The quantization points of one layer."""

    weight: Rounder
    output: Rounder
    error: Rounder  # of the layer's input
    gradient: Rounder
    bias_gradient: Rounder


class MacUnit:
    """A conv (any stride, padding, groups) or linear layer with its bias and activation.

    Forward: y = quantize(activation(W x + b)) (Wu et al. 2020 eq. 5); backward: the error through the activation's
    mask, pruned by channels, then input error (eq. 8) and weight gradient (eq. 12), each quantized.
    """

    def __init__(
        self,
        layer: Layer,
        module: nn.Conv2d | nn.Linear,
        pad: tuple[int, ...],
        q: MacQuantizers,
        pruner: Pruner,
    ) -> None:
        self.name, self.layer, self.module, self.pad, self.q, self.pruner = (
            layer.name,
            layer,
            module,
            pad,
            q,
            pruner,
        )
        self.trains = "all"
        conv = isinstance(module, nn.Conv2d)
        self.stride = module.stride if conv else ()
        self.padding = module.padding if conv else ()
        self.dilation = module.dilation if conv else ()
        self.groups = module.groups if conv else 1

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        """x: [n, C, H, W] or [n, features]; returns the stored output."""
        weight = self.q.weight(self.module.weight.detach().to(x.values.dtype), tape.clock)
        source = F.pad(x.values, self.pad) if self.pad else x.values
        shape = source.shape
        if not self.stride:
            source = source.flatten(1)
        bias = self._bias_on_grid(x, weight)
        if self.stride:
            y = F.conv2d(source, weight.values, bias, self.stride, self.padding, self.dilation, self.groups)
        else:
            y = F.linear(source, weight.values, bias)
        out = activate(y, self.layer.activation, self.q.output, tape)
        tape.save(self.name, (source, out.values if self.layer.activation != "none" else None), shape, weight)
        return out

    def _bias_on_grid(self, x: FixedTensor, weight: FixedTensor) -> Tensor | None:
        """The bias as the accumulator holds it: rounded to nearest even in units of the products' step."""
        bias = self.module.bias
        if bias is None or x.exponent is None or weight.exponent is None:
            return None if bias is None else bias.detach()
        exponent = x.exponent + weight.exponent
        codes = torch.round(bias.detach().double() * math.ldexp(1.0, -exponent))
        return (codes * math.ldexp(1.0, exponent)).to(x.values.dtype)

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None]:
        """error: gradient of the loss with respect to the output, [n, K, H', W'] or [n, K]."""
        source, out, shape, weight = tape.take(self.name)
        delta = error.values if out is None else through_activation(error.values, out, self.layer.activation)
        delta, channels, density = self.pruner.prune(
            FixedTensor(delta, error.exponent), weight.values, self.layer, tape
        )
        tape.note(self.name, self.layer.out_channels if channels is None else len(channels), density)
        if self.stride:
            d_input, d_weight, d_bias = self._conv_backward(delta, source, weight.values, channels, needed)
        else:
            d_input = delta @ weight.values if needed else None
            d_weight = delta.t() @ source if self.trains == "all" else None
            d_bias = delta.sum(0) if self._learns_bias else None
        self._store(d_weight, d_bias, channels, tape)
        if d_input is None:
            return (None,)
        return (self.q.error(d_input.view(-1, *shape[1:]) if not self.stride else d_input, tape.clock, tape.rows),)

    @property
    def _learns_bias(self) -> bool:
        return self.module.bias is not None and self.trains != "none"

    def _conv_backward(
        self, delta: Tensor, source: Tensor, weight: Tensor, channels: Tensor | None, needed: bool
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Input error, weight gradient and bias gradient; with `channels`, a smaller dense convolution."""
        groups, inputs = self.groups, source
        depthwise = groups > 1 and groups == self.layer.in_channels
        if channels is not None:
            delta, weight = delta[:, channels], weight[channels]
            if groups > 1:  # equally many channels are kept in every group
                groups = len(channels) if depthwise else groups
            if depthwise:  # each kept output channel meets its own input channel only
                per_input = self.layer.out_channels // self.groups
                owners = torch.div(channels, per_input, rounding_mode="floor")
                inputs = source[:, owners]
        delta = delta.contiguous(memory_format=_memory_format(source))
        mask = [needed, self.trains == "all", self._learns_bias]
        d_input, d_weight, d_bias = torch.ops.aten.convolution_backward(
            delta, inputs, weight, [weight.shape[0]] if mask[2] else None,
            list(self.stride), list(self.padding), list(self.dilation), False, [0, 0], groups, mask,
        )  # fmt: skip
        if d_input is not None and channels is not None and depthwise:
            d_input = torch.zeros_like(source).index_add_(1, owners, d_input)
        if d_input is not None and self.pad:
            d_input = F.pad(d_input, tuple(-p for p in self.pad))
        return d_input, d_weight, d_bias

    def _store(self, d_weight: Tensor | None, d_bias: Tensor | None, channels: Tensor | None, tape: Tape) -> None:
        """Quantize the gradients and put them into `.grad`; pruned channels get zero."""
        pairs: list[tuple[Any, Tensor | None, Rounder]] = [
            (self.module.weight, d_weight, self.q.gradient),
            (self.module.bias, d_bias, self.q.bias_gradient),
        ]
        for parameter, gradient, quantizer in pairs:
            if gradient is None:
                continue
            values = quantizer(gradient, tape.clock, channels).values
            if channels is not None:
                full = torch.zeros_like(parameter, dtype=values.dtype)
                full[channels] = values
                values = full
            values = values.to(parameter.dtype)
            parameter.grad = values if parameter.grad is None else parameter.grad + values


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
