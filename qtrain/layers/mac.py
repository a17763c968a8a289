"""Convolution and linear layers: forward, input error and weight gradient, each in its own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.accumulator import Accumulator
from qtrain.layers.channels import own_units, shared_units
from qtrain.layers.exact import CARRIER, FLOAT64, INEXACT, adds_exactly, bias_bound, gradient_parts, limit, sums_bound
from qtrain.layers.pointwise import activate, through_activation
from qtrain.layers.products import Products, Sums, gathers, without
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
    sent: Rounder | None = None  # bi-precision: of the copy of the output's error that the input error is made of


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
        accumulator: Accumulator,
    ) -> None:
        self.name, self.layer, self.module, self.q, self.pruner = layer.name, layer, module, q, pruner
        self.pad, self.accumulator, self.products = pad, accumulator, Products.of(module, pad)
        self.trains = "all"
        self.trained_channels = 0  # the first output channels that learn; 0: all
        self.carried: dict[str, str] = {}  # how each pass was last kept exact

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        """x: [n, C, H, W] or [n, features]; returns the stored output."""
        weight = self.q.weight(self.module.weight.detach().to(x.values.dtype), tape.clock, learn=tape.training)
        source = F.pad(x.values, self.pad) if self.pad else x.values
        shape = source.shape
        if not self.products.stride:
            source = source.flatten(1)
        bias, units = self._bias_on_grid(x, weight), own_units(weight)
        bound, fits = 0.0, True
        exact = x.exponent is not None and weight.exponent is not None
        if exact:
            top, stored = min(limit(source.dtype), self.accumulator.limit), FixedTensor(source, x.exponent)
            bound = sums_bound(weight.values, units, stored, self.layer.groups, top, bias)
            fits = bound < limit(source.dtype) and adds_exactly(source)
        self.carried["forward"] = INEXACT if not exact else CARRIER if fits else FLOAT64
        carrier = source.dtype if fits else torch.float64
        y = self.products.forward(
            source.to(carrier), weight.values.to(carrier), None if bias is None else bias.to(carrier)
        )
        unit = _along_channels(units, y) * math.ldexp(1.0, x.exponent or 0)
        y = self.accumulator.hold(y, unit, "forward", bound, count=tape.training)
        out = activate(y, self.layer.activation, self.q.output, tape, owned=True, packed=self.layer.normalized)
        if not fits:
            out = FixedTensor(out.values.to(source.dtype), out.exponent)
        kept = out.values if self.layer.activation != "none" else None
        tape.save(self.name, (source, kept), shape, weight, x.exponent)
        return out

    def _bias_on_grid(self, x: FixedTensor, weight: FixedTensor) -> Tensor | None:
        """The bias as the accumulator holds it, in float64 [K]: rounded to nearest even in units of the products'
        step."""
        bias = self.module.bias
        if bias is None or x.exponent is None or weight.exponent is None:
            return None if bias is None else bias.detach()
        unit, top = own_units(weight) * math.ldexp(1.0, x.exponent), self.accumulator.bias_max
        return torch.round(bias.detach().double() / unit).clamp_(-top, top) * unit

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
        x, units = FixedTensor(source, exponent), shared_units(weight, self.layer.groups)
        d_input, bound, only = None, 0.0, (True, False, False)
        if self.q.sent is not None and needed:
            copy, mask = self.q.sent(delta, tape.clock, tape.rows), (False, *learns)
            kept = weight if channels is None else without(delta, weight, channels, gathered=False)[1]
            (d_input, *_), (bound, *_) = self._exact_back(copy, x, kept, units, only)
        if self.trained_channels and any(learns):  # a smaller weight gradient beside a whole input error
            channels, mask = torch.arange(self.trained_channels), (False, *learns)
            if needed and d_input is None:
                (d_input, *_), (bound, *_) = self._exact_back(
                    FixedTensor(delta, error.exponent), x, weight, units, only
                )
        taken = None if channels is None or gathers(self.layer, len(channels), mask[0]) else channels
        if channels is not None:
            delta, weight = without(delta, weight, channels, gathered=taken is None)
        sums, bounds = self._exact_back(FixedTensor(delta, error.exponent), x, weight, units, mask)
        if d_input is not None:
            sums, bounds = (d_input, *sums[1:]), (bound, *bounds[1:])
        if taken is not None:
            d_weight, d_bias = (None if d is None else d[taken] for d in sums[1:])
            sums = sums[0], d_weight, d_bias
        d_input, d_weight, d_bias = self._held(sums, bounds, units, error.exponent or 0, exponent or 0)
        self._store(d_weight, d_bias, channels, tape)
        if d_input is None:
            return (None,)
        d_input = d_input.view(-1, *shape[1:]) if not self.products.stride else d_input
        stored = self.q.error(d_input, tape.clock, tape.rows, owned=not self.pad)
        return (FixedTensor(stored.values.to(source.dtype), stored.exponent),)

    @property
    def _learns_bias(self) -> bool:
        return self.module.bias is not None and self.trains != "none"

    def _exact_back(
        self, delta: FixedTensor, x: FixedTensor, weight: FixedTensor, units: Tensor | float,
        mask: tuple[bool, bool, bool],
    ) -> tuple[Sums, tuple[float, float, float]]:  # fmt: skip
        """Input error (the weights' codes in `units`), weight gradient and bias gradient, those in `mask`, and what
        their codes are proved not to exceed."""
        operands = delta.values, x.values, weight.values
        if delta.exponent is None or x.exponent is None or weight.exponent is None:
            self.carried |= {"error": INEXACT, "gradient": INEXACT}
            return self.products.back(*operands, mask), (0.0, 0.0, 0.0)
        carrier, bound, groups = limit(delta.values.dtype), 0.0, self.layer.groups
        if mask[0]:
            top = min(carrier, self.accumulator.limit)
            bound = sums_bound(weight.values, units, delta, groups, top, transposed=True)
        whole = [(0, len(delta.values))]
        parts = gradient_parts(delta, x, groups) if mask[1] else whole
        fits = not mask[0] or (bound < carrier and adds_exactly(delta.values))
        if mask[0] or not self.trained_channels:
            self.carried["error"] = CARRIER if fits else FLOAT64
        self.carried["gradient"] = CARRIER if parts == whole else f"{len(parts)} parts" if parts else FLOAT64
        bounds = bound, carrier if parts == whole else math.inf, bias_bound(delta.values)
        if fits and parts == whole and bounds[2] < carrier:
            return self.products.back(*operands, mask), bounds
        return self.products.back_in_parts(*operands, mask, fits, parts), bounds

    def _held(
        self, sums: Sums, bounds: tuple[float, float, float], units: Tensor | float, e_error: int, e_input: int
    ) -> Sums:
        """What the accumulator holds of the backward pass' sums; arguments as of `_exact_back`, and its operands'
        exponents."""
        (d_input, d_weight, d_bias), hold = sums, self.accumulator.hold
        unit = math.ldexp(1.0, e_error)
        if d_input is not None:
            if isinstance(units, Tensor):
                units = _along_channels(units.repeat_interleave(self.layer.in_channels // self.layer.groups), d_input)
            d_input = hold(d_input, units * unit, "error", bounds[0])
        if d_weight is not None:
            d_weight = hold(d_weight, unit * math.ldexp(1.0, e_input), "gradient", bounds[1])
        if d_bias is not None:
            d_bias = hold(d_bias, unit, "gradient", bounds[2])
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


def _along_channels(units: Tensor | float, sums: Tensor) -> Tensor | float:
    """Units [C] so that they broadcast against sums [n, C, ...]; one unit as it is."""
    return units if isinstance(units, float) else units.view(1, -1, *([1] * (sums.dim() - 2)))
