"""Layers without weights: input, activation, residual add, fork, pooling, shortcut."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.tape import Tape

RELU6_CAP = 6.0
_RECIPROCAL_BITS = 16
"""An average over k values multiplies their sum by round(2^16 / k); exact when k is a power of two."""


def activate(
    y: Tensor, activation: str, output: Callable[..., FixedTensor], tape: Tape, **hints: Any
) -> FixedTensor:  # fmt: skip
    """Store `y` through the layer's output quantizer; an unsigned format is itself the ReLU."""
    cap = RELU6_CAP if activation == "relu6" else None
    return output(y, tape.clock, tape.rows, learn=tape.training, cap=cap, **hints)


def through_activation(error: Tensor, out: Tensor, activation: str) -> Tensor:
    """The error before the activation: PyTorch's threshold and hardtanh backward, told from the stored output."""
    if activation == "relu6":
        return torch.ops.aten.hardtanh_backward(error, out, 0.0, RELU6_CAP)
    return torch.ops.aten.threshold_backward(error, out, 0)


class InputUnit:
    """Puts the image into the activation format: on a device a 256-entry table per channel."""

    def __init__(self, layer: Layer, output: Callable[..., FixedTensor]) -> None:
        self.name, self.layer, self.output = layer.name, layer, output

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        return activate(x.values, "none", self.output, tape)

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        return (error,)


class AddUnit:
    """Residual addition with its activation; operands on different grids are aligned exactly before the rounding."""

    def __init__(self, layer: Layer, output: Callable[..., FixedTensor]) -> None:
        self.name, self.layer, self.output = layer.name, layer, output

    def forward(self, tape: Tape, a: FixedTensor, b: FixedTensor | None = None) -> FixedTensor:
        """a + b; a alone where the other operand's block is left out."""
        if b is None:
            out = activate(a.values, self.layer.activation, self.output, tape)
        else:
            x, y = exact_terms(a, b)
            out = activate(x, self.layer.activation, self.output, tape, plus=y, owned=x is not a.values)
        out = FixedTensor(out.values.to(a.values.dtype), out.exponent)
        if self.layer.activation != "none":
            tape.save(self.name, (out.values,))
        return out

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        if self.layer.activation != "none":
            (out,) = tape.take(self.name)
            error = FixedTensor(through_activation(error.values, out, self.layer.activation), error.exponent)
        return error, error


def exact_terms(a: FixedTensor, b: FixedTensor) -> tuple[Tensor, Tensor]:
    """a and b in a dtype whose sum of them is exact: float64 where exponents differ by more than the carrier has room
    for."""
    if a.exponent is None or b.exponent is None or a.values.dtype == torch.float64:
        return a.values, b.values
    if abs(a.exponent - b.exponent) <= 24 - 9:  # 8-bit codes: the sum needs 9 bits plus the alignment
        return a.values, b.values
    return a.values.double(), b.values.double()


class ForkUnit:
    """One value read by several layers: nothing forward; backward their errors are summed and stored once."""

    def __init__(self, layer: Layer, error: Callable[..., FixedTensor]) -> None:
        self.name, self.layer, self.error = layer.name, layer, error

    def sum(self, tape: Tape, errors: list[FixedTensor]) -> FixedTensor:
        """The stored sum of the readers' errors, given in the order the backward pass made them."""
        x, y = exact_terms(errors[0], errors[1])
        for other in errors[2:]:
            x, y = x + y, other.values
            if other.exponent is not None:
                x, y = x.double(), y.double()
        stored = self.error(x, tape.clock, tape.rows, plus=y)
        return FixedTensor(stored.values.to(errors[0].values.dtype), stored.exponent)


class ActivationUnit:
    """An activation that could not be fused into the layer before it."""

    def __init__(self, layer: Layer, output: Callable[..., FixedTensor]) -> None:
        self.name, self.layer, self.output = layer.name, layer, output

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        out = activate(x.values, self.layer.activation, self.output, tape)
        tape.save(self.name, (out.values,))
        return out

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        (out,) = tape.take(self.name)
        return (FixedTensor(through_activation(error.values, out, self.layer.activation), error.exponent),)


class MaxPoolUnit:
    """Maximum of each window: codes are copied; the error returns to the first maximum."""

    def __init__(self, layer: Layer, padding: tuple[int, int], error: Callable[..., FixedTensor]) -> None:
        self.name, self.layer, self.padding, self.error = layer.name, layer, padding, error
        self.kernel = (layer.kernel_height, layer.kernel_width)
        self.stride = (layer.stride_height, layer.stride_width)

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        out, where = torch.ops.aten.max_pool2d_with_indices(x.values, self.kernel, self.stride, self.padding)
        tape.save(self.name, (x.values, where))
        return FixedTensor(out, x.exponent)

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        x, where = tape.take(self.name)
        values = torch.ops.aten.max_pool2d_with_indices_backward(
            error.values, x, self.kernel, self.stride, self.padding, (1, 1), False, where
        )
        if self.kernel == self.stride:  # windows do not overlap: codes only moved
            return (FixedTensor(values, error.exponent),)
        return (self.error(values, tape.clock, tape.rows),)


class AvgPoolUnit:
    """Mean of each window: an exact sum, then a multiplication by round(2^16 / k) 2^-16."""

    def __init__(
        self, layer: Layer, padding: tuple[int, int], output: Callable[..., FixedTensor],
        error: Callable[..., FixedTensor],
    ) -> None:  # fmt: skip
        self.name, self.layer, self.padding, self.output, self.error = (
            layer.name,
            layer,
            padding,
            output,
            error,
        )
        self.kernel = (layer.kernel_height, layer.kernel_width)
        self.stride = (layer.stride_height, layer.stride_width)
        count = layer.kernel_height * layer.kernel_width
        self.reciprocal = round(2**_RECIPROCAL_BITS / count) / 2**_RECIPROCAL_BITS
        self.count = count
        self.whole = self.kernel == (layer.in_height, layer.in_width)

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        tape.save(self.name, (), x.values.shape)
        if x.exponent is None and self.whole:
            mean = x.values.mean((2, 3), keepdim=True)  # as PyTorch's adaptive pooling sums it
        elif x.exponent is None:
            mean = F.avg_pool2d(x.values, self.kernel, self.stride, self.padding)
        else:
            total = F.avg_pool2d(x.values.double(), self.kernel, self.stride, self.padding, divisor_override=1)
            mean = total * self.reciprocal
        out = activate(mean, self.layer.activation, self.output, tape)
        return FixedTensor(out.values.to(x.values.dtype), out.exponent)

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        (shape,) = tape.take(self.name)
        shape = torch.Size((error.values.shape[0], *shape[1:]))
        exact = error.exponent is not None
        if self.whole and not exact:
            return (FixedTensor((error.values / self.count).expand(shape)),)
        source = error.values.double() * self.reciprocal if exact else error.values
        like = source.new_empty(()).expand(shape)
        values = torch.ops.aten.avg_pool2d_backward(
            source, like, self.kernel, self.stride, self.padding, False, True, 1 if exact else None
        )
        power = self.count & (self.count - 1) == 0
        if power and exact and self.kernel == self.stride:  # every error lands alone, its code unchanged
            shift = int(math.log2(self.count))
            return (FixedTensor(values.to(error.values.dtype), (error.exponent or 0) - shift),)
        stored = self.error(values, tape.clock, tape.rows)
        return (FixedTensor(stored.values.to(error.values.dtype), stored.exponent),)


class ShortcutUnit:
    """ResNet option A: every stride-th pixel, new channels zero; or plain zero padding. Codes only move."""

    def __init__(self, layer: Layer, move: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> None:
        self.name, self.layer, self.move, self.back = layer.name, layer, move, back

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        return FixedTensor(self.move(x.values), x.exponent)

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        return (FixedTensor(self.back(error.values), error.exponent),)
