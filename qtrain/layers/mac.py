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
from qtrain.engine.channels import gather
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.exact import CARRIER, FLOAT64, INEXACT, bias_fits, gradient_parts, weights_fit
from qtrain.layers.pointwise import activate, through_activation
from qtrain.layers.tape import Tape
from qtrain.pruners import Pruner

Rounder = Callable[..., FixedTensor]
SIMD_LANES = 16
"""Output channels a block of oneDNN's float32 kernels holds with AVX-512."""
BIAS_MAX = 1 << 30
"""Largest bias in units of the products' step: a 32-bit accumulator has as much left for the products."""


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
        module: Any,  # nn.Conv2d or nn.Linear; PyTorch types their attributes too widely to compute with
        pad: tuple[int, ...],
        q: MacQuantizers,
        pruner: Pruner,
    ) -> None:
        self.name, self.layer, self.module, self.q, self.pruner = layer.name, layer, module, q, pruner
        self.pad = pad
        self.trains = "all"
        self.trained_channels = 0  # the first output channels that learn; 0: all
        self.carried: dict[str, str] = {}  # how each pass was last kept exact
        conv = isinstance(module, nn.Conv2d)
        self.stride: tuple[int, ...] = self.module.stride if conv else ()
        self.padding: tuple[int, ...] = self.module.padding if conv else ()
        self.dilation: tuple[int, ...] = self.module.dilation if conv else ()
        self.groups: int = self.module.groups if conv else 1

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        """x: [n, C, H, W] or [n, features]; returns the stored output."""
        weight = self.q.weight(self.module.weight.detach().to(x.values.dtype), tape.clock, learn=tape.training)
        source = F.pad(x.values, self.pad) if self.pad else x.values
        shape = source.shape
        if not self.stride:
            source = source.flatten(1)
        bias = self._bias_on_grid(x, weight)
        exact = x.exponent is not None and weight.exponent is not None
        fits = not exact or weights_fit(weight, FixedTensor(source, x.exponent), self.groups, bias)
        carrier = source.dtype if fits else torch.float64
        operands = source.to(carrier), weight.values.to(carrier), None if bias is None else bias.to(carrier)
        self.carried["forward"] = INEXACT if not exact else CARRIER if fits else FLOAT64
        if self.stride:
            y = F.conv2d(*operands, self.stride, self.padding, self.dilation, self.groups)
        else:
            y = F.linear(*operands)
        out = activate(y, self.layer.activation, self.q.output, tape, owned=True, packed=self.layer.normalized)
        if not fits:
            out = FixedTensor(out.values.to(source.dtype), out.exponent)
        kept = out.values if self.layer.activation != "none" else None
        tape.save(self.name, (source, kept), shape, weight, x.exponent)
        return out

    def _bias_on_grid(self, x: FixedTensor, weight: FixedTensor) -> Tensor | None:
        """The bias as the accumulator holds it, in float64: rounded to nearest even in units of the products' step."""
        bias = self.module.bias
        if bias is None or x.exponent is None or weight.exponent is None:
            return None if bias is None else bias.detach()
        exponent = x.exponent + weight.exponent
        codes = torch.round(bias.detach().double() * math.ldexp(1.0, -exponent)).clamp_(-BIAS_MAX, BIAS_MAX)
        return codes * math.ldexp(1.0, exponent)

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None]:
        """error: gradient of the loss with respect to the output, [n, K, H', W'] or [n, K]."""
        source, out, shape, weight, exponent = tape.take(self.name)
        delta = error.values if out is None else through_activation(error.values, out, self.layer.activation)
        delta, channels, density = self.pruner.prune(
            FixedTensor(delta, error.exponent), weight.values, self.layer, tape
        )
        tape.note(self.name, self.layer.out_channels if channels is None else len(channels), density)
        learns = self.trains == "all", self._learns_bias
        mask = needed, *learns
        x, d_input = FixedTensor(source, exponent), None
        if self.trained_channels and any(learns):  # a smaller weight gradient beside a whole input error
            channels, mask = torch.arange(self.trained_channels), (False, *learns)
            if needed:
                d_input, _, _ = self._exact_back(FixedTensor(delta, error.exponent), x, weight, (True, False, False))
        taken = None if channels is None or _gathers(self.layer, len(channels), mask[0]) else channels
        if channels is not None:
            delta, weight = _without(delta, weight, channels, gathered=taken is None)
        found, d_weight, d_bias = self._exact_back(FixedTensor(delta, error.exponent), x, weight, mask)
        d_input = found if d_input is None else d_input
        if taken is not None:
            d_weight, d_bias = (None if d is None else d[taken] for d in (d_weight, d_bias))
        self._store(d_weight, d_bias, channels, tape)
        if d_input is None:
            return (None,)
        d_input = d_input.view(-1, *shape[1:]) if not self.stride else d_input
        stored = self.q.error(d_input, tape.clock, tape.rows, owned=not self.pad)
        return (FixedTensor(stored.values.to(source.dtype), stored.exponent),)

    @property
    def _learns_bias(self) -> bool:
        return self.module.bias is not None and self.trains != "none"

    def _exact_back(
        self, delta: FixedTensor, x: FixedTensor, weight: FixedTensor, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Input error, weight gradient and bias gradient, those in `mask`: in the carrier where its sums are certified,
        else the input error in float64 and the gradient in parts of the batch, added in float64."""
        n = len(delta.values)
        whole = [(0, n)]
        if None in (delta.exponent, x.exponent, weight.exponent):
            self.carried |= {"error": INEXACT, "gradient": INEXACT}
            return self._back(delta.values, x.values, weight.values, mask)
        fits = not mask[0] or weights_fit(weight, delta, self.groups, transposed=True)
        parts = gradient_parts(delta, x, self.groups) if mask[1] else whole
        if mask[0] or not self.trained_channels:
            self.carried["error"] = CARRIER if fits else FLOAT64
        self.carried["gradient"] = CARRIER if parts == whole else f"{len(parts)} parts" if parts else FLOAT64
        if fits and parts == whole and bias_fits(delta.values):
            return self._back(delta.values, x.values, weight.values, mask)
        d_input = d_weight = d_bias = None
        if mask[0]:
            d, w = (delta.values, weight.values) if fits else (delta.values.double(), weight.values.double())
            d_input, _, _ = self._back(d, x.values.to(d.dtype), w, (True, False, False))
        if mask[1]:
            d, source = delta.values, x.values
            if not parts:
                d, source, parts = d.double(), source.double(), whole
            sums = [
                self._back(d[a:b], source[a:b], weight.values.to(d.dtype), (False, True, False))[1] for a, b in parts
            ]
            d_weight = torch.stack([part.double() for part in sums if part is not None]).sum(0)
        if mask[2]:
            d_bias = delta.values.transpose(0, 1).flatten(1).sum(1, dtype=torch.float64)
        return d_input, d_weight, d_bias

    def _back(
        self, delta: Tensor, source: Tensor, weight: Tensor, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The three sums of the backward pass, those in `mask`."""
        if not self.stride:
            return (
                delta @ weight if mask[0] else None,
                delta.t() @ source if mask[1] else None,
                delta.sum(0) if mask[2] else None,
            )
        delta = delta.contiguous(memory_format=_memory_format(source))
        d_input, d_weight, d_bias = torch.ops.aten.convolution_backward(
            delta, source, weight, [weight.shape[0]] if mask[2] else None,
            list(self.stride), list(self.padding), list(self.dilation), False, [0, 0], self.groups, list(mask),
        )  # fmt: skip
        if d_input is not None and self.pad:
            d_input = F.pad(d_input, tuple(-p for p in self.pad))
        return d_input, d_weight, d_bias

    def _store(self, d_weight: Tensor | None, d_bias: Tensor | None, channels: Tensor | None, tape: Tape) -> None:
        """Quantize the gradients and put them into `.grad`; pruned channels get zero."""
        pairs: list[tuple[Any, Tensor | None, Rounder]] = [
            (self.module.weight, d_weight if self.trains == "all" else None, self.q.gradient),
            (self.module.bias, d_bias, self.q.bias_gradient),
        ]
        for parameter, gradient, quantizer in pairs:
            if gradient is None:
                continue
            values = quantizer(gradient, tape.clock, channels, owned=True).values
            if channels is not None:
                full = torch.zeros_like(parameter, dtype=values.dtype)
                full[channels] = values
                values = full
            values = values.to(parameter.dtype)
            parameter.grad = values if parameter.grad is None else parameter.grad + values


def _gathers(layer: Layer, n_kept: int, needed: bool) -> bool:
    """Whether a smaller convolution of the kept channels alone repays copying their error: the input error's takes time
    in proportion, the weight gradient's by blocks of SIMD_LANES (benchmarks/shrink.py --layers). A depthwise one reads
    an element little oftener than the copy does."""
    if layer.groups > 1 and layer.groups == layer.in_channels:
        return False
    return needed or math.ceil(n_kept / SIMD_LANES) < math.ceil(layer.out_channels / SIMD_LANES)


def _without(delta: Tensor, weight: FixedTensor, channels: Tensor, *, gathered: bool) -> tuple[Tensor, FixedTensor]:
    """The error and the weights of the kept output `channels`; or, not gathered, the whole error beside weights that
    are zero for the others, so that these add nothing to the input error."""
    if gathered:
        return gather(delta, channels), FixedTensor(weight.values[channels], weight.exponent)
    kept = torch.zeros_like(weight.values).index_copy_(0, channels, weight.values[channels])
    return delta, FixedTensor(kept, weight.exponent)


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
