"""Batch normalization on stored codes: exact integer sums, integer constants per channel, one multiply-add an element.

The convolution's output is stored as codes `a` (norm_bits wide). Per channel, with n elements, S1 = sum a and
S2 = sum a^2:
    mean      m8  = round(2^8 S1 / n)                                  (8 fraction bits)
    variance  v16 = max(2^8 round(2^8 S2 / n) - m8^2, 0) + eps         (16 fraction bits, in units of a's step squared)
    1/sqrt    r 2^e, r of 16 bits (formats.integers.inverse_sqrt)
    output    y = a A + B on one grid, |A| < 2^15, |B| < 2^23: the multiply-add fits 24 bits at 8-bit codes
and backward, with error codes g, T1 = sum g, T2 = sum g a: dx = g P + a Q + R, the usual
    gamma/sqrt(v) (g - T1/n - (a - m) (T2 - m T1) / (n v))             (Ioffe & Szegedy 2015)
on one grid with |P| <= 2^14, |Q| <= 2^15, |R| <= 2^22. Batches with fewer than MIN_ELEMENTS use running statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hwmodel.operations import Layer
from qtrain.engine import norm as compiled
from qtrain.formats.fixed import CARRIER_BITS, FixedPoint, FixedTensor
from qtrain.formats.integers import (
    bit_length,
    divide_round,
    inverse_sqrt,
    normalize,
    power_of_two,
    shift_round,
)
from qtrain.layers.mac import Rounder
from qtrain.layers.pointwise import activate, through_activation
from qtrain.layers.quantizer import Clock
from qtrain.layers.tape import Tape

MIN_ELEMENTS = 2
"""A variance needs two elements; PyTorch refuses a training batch of one."""
RUNNING_SHARE = 0.1
"""Share of the batch's statistics entering the running ones (PyTorch's default momentum)."""
STATISTIC = FixedPoint(24)
"""Format of the running statistics: what PyTorch's float32 buffers hold exactly; four bytes a channel."""


@dataclass(frozen=True, slots=True)
class NormQuantizers:
    """The quantization points of one normalization."""

    scale: Rounder
    shift: Rounder
    output: Rounder
    error: Rounder
    scale_gradient: Rounder
    shift_gradient: Rounder


@dataclass(frozen=True, slots=True)
class _Channel:
    """Integer constants of each channel, int64 [C]: mean m8 2^-8, inverse root r 2^e, scale gm, count n."""

    m8: Tensor
    root: Tensor
    root_exponent: Tensor
    n: int
    batch: bool  # statistics of this batch (the error flows through them) or running ones


class NormUnit:
    """BatchNorm2d/1d in fixed point with its activation."""

    def __init__(self, layer: Layer, module: Any, q: NormQuantizers) -> None:
        self.name, self.layer, self.module, self.q = layer.name, layer, module, q  # nn.BatchNorm1d or 2d
        self.trains = "all"

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        """x: stored codes of the convolution's output, [n, C, H, W] or [n, C]."""
        assert x.exponent is not None
        if (done := compiled.forward(self, tape, x, MIN_ELEMENTS)) is not None:
            return done
        a = x.codes()
        channel = self._statistics(a, x.exponent, tape)
        scale = self.q.scale(self.module.weight.detach().double(), tape.clock, learn=tape.training)
        shift = self.q.shift(self.module.bias.detach().double(), tape.clock, learn=tape.training)
        gain, offset, grid = _affine(channel, scale, shift)
        view = (1, -1, *([1] * (a.dim() - 2)))
        y = (_on_grid(gain, grid, a.dtype).view(view) * a).add_(_on_grid(offset, grid, a.dtype).view(view))
        out = activate(y, self.layer.activation, self.q.output, tape)
        tape.save(self.name, (a, out.values), x.exponent, channel, scale)
        return out

    def _statistics(self, a: Tensor, exponent: int, tape: Tape) -> _Channel:
        n = a.numel() // max(a.shape[1], 1)
        mean, variance = self.module.running_mean, self.module.running_var
        unit = math.ldexp(1.0, exponent)
        epsilon = self.epsilon(exponent)
        if tape.training and n >= MIN_ELEMENTS:
            s1, s2 = _channel_sums(a, 1), _channel_sums(a.square(), 2)
            m8 = divide_round(s1 << 8, n)
            v16 = ((divide_round(s2 << 8, n) << 8) - m8 * m8).clamp(min=0)
            _blend(mean, m8, exponent - 8, self.share)
            _blend(variance, v16, 2 * exponent - 16, self.share)
            batch = True
        else:
            m8 = (mean.double() * (2.0**8 / unit)).round().long()
            v16 = (variance.double() * (2.0**16 / unit**2)).round().long().clamp(0, 1 << 50)
            batch = False
        root, e = inverse_sqrt(v16 + epsilon)
        return _Channel(m8, root, e + 8, n, batch)  # v16 has 16 fraction bits: 1/sqrt gains 8

    def inference_affine(self, exponent: int) -> tuple[Tensor, Tensor]:
        """(gain, offset), float64 [C]: with running statistics a stored value x = a 2^exponent gives gain x + offset
        before the output's quantizer."""
        like = self.module.running_mean.new_zeros(1, self.layer.in_channels)
        tape = Tape(Clock(0, 0), training=False)
        channel = self._statistics(like, exponent, tape)
        scale = self.q.scale(self.module.weight.detach().double(), tape.clock, learn=tape.training)
        shift = self.q.shift(self.module.bias.detach().double(), tape.clock, learn=tape.training)
        gain, offset, grid = _affine(channel, scale, shift)
        return gain * power_of_two(grid - exponent), offset * power_of_two(grid)

    def epsilon(self, exponent: int) -> int:
        """The module's eps with 16 fraction bits, in units of the square of 2^exponent."""
        return min(max(1, round(self.module.eps * 2.0 ** (16 - 2 * exponent))), 1 << 50)

    @property
    def share(self) -> float:
        """What of the batch's statistics enters the running ones."""
        return self.module.momentum if self.module.momentum is not None else RUNNING_SHARE

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        saved = tape.take(self.name)
        if isinstance(saved[-1], compiled.Record):
            codes, record = saved
            return compiled.backward(self, tape, codes, record, error, needed)
        a, out, exponent, channel, scale = saved
        assert error.exponent is not None
        g = error.codes().to(a.dtype)
        if self.layer.activation != "none":
            g = through_activation(g, out, self.layer.activation)
        t1, t2 = _channel_sums(g, 1), _channel_sums(g * a, 2)
        centred = (t2 << 8) - channel.m8 * t1  # sum g (a - m), 8 fraction bits
        if self.trains != "none":
            self._store(t1, centred, channel, error.exponent, tape)
        if not needed:
            return (None,)
        p, q, r, grid = _backward_constants(channel, scale, t1, centred)
        view = (1, -1, *([1] * (g.dim() - 2)))
        grid = grid + error.exponent - exponent  # per unit of x, not per code of it
        p, q, r = (_on_grid(constant, grid, g.dtype).view(view) for constant in (p, q, r))
        dx = torch.addcmul(r, p, g).addcmul_(q, a)
        return (self.q.error(dx, tape.clock, tape.rows),)

    def _store(self, t1: Tensor, centred: Tensor, channel: _Channel, exponent: int, tape: Tape) -> None:
        mantissa, shift = normalize(centred, 30)
        slope = (mantissa * channel.root).double() * power_of_two(shift - 8 + channel.root_exponent + exponent)
        self.store_gradients(slope, t1.double() * 2.0**exponent, tape)

    def store_gradients(self, slope: Tensor, offset: Tensor, tape: Tape) -> None:
        """Quantize the gradients of scale and shift, float64 [C], and add them to `.grad`."""
        pairs = [(self.module.bias, offset, self.q.shift_gradient)]
        if self.trains == "all":
            pairs.append((self.module.weight, slope, self.q.scale_gradient))
        for parameter, gradient, quantizer in pairs:
            values = quantizer(gradient, tape.clock).values.to(parameter.dtype)
            parameter.grad = values if parameter.grad is None else parameter.grad + values


def _blend(running: Tensor, batch: Tensor, exponent: int, share: float) -> None:
    """running <- (1 - share) running + share batch 2^exponent, as 24-bit codes on one grid for all channels."""
    amax = max(float(running.abs().max()), math.ldexp(int(batch.abs().max()), exponent))
    grid = STATISTIC.exponent_for(amax)
    weight = round(share * 2**16)
    old = (running.double() * math.ldexp(1.0, 16 - grid) + 0.5).floor().long()
    new = shift_round(batch, min(max(grid - 16 - exponent, -62), 62))
    codes = shift_round(old * (2**16 - weight) + new * weight, 32)
    running.copy_(codes.double() * math.ldexp(1.0, grid))


def _channel_sums(x: Tensor, factors: int) -> Tensor:
    """Sums by channel, int64 [C], of integers [n, C, ...], each the product of so many codes of the carrier's width.

    Rows or whole planes are summed in the carrier where that is exact, the rest in float64.
    """
    room = CARRIER_BITS[x.dtype] - factors * (7 if x.dtype == torch.float32 else 15)
    for dims in ((2, 3), (3,)):
        if x.dim() == 4 and math.prod(x.shape[d] for d in dims) <= 2**room:
            x = x.sum(dims)
    return x.double().sum([d for d in range(x.dim()) if d != 1]).long()


def _on_grid(x: Tensor, exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """x * 2^exponent as a float tensor, exact: |x| < 2^24."""
    return (x.double() * power_of_two(exponent)).to(dtype)


def _affine(channel: _Channel, scale: FixedTensor, shift: FixedTensor) -> tuple[Tensor, Tensor, Tensor]:
    """(A, B, grid): y = (A a + B) 2^grid, with A = gamma r and B = beta - m A."""
    assert scale.exponent is not None
    assert shift.exponent is not None
    product = scale.codes().long() * channel.root  # at most 15 + 17 bits
    exponent = scale.exponent + channel.root_exponent
    beta = shift_round(shift.codes().long(), (exponent - 8 - shift.exponent).clamp(-46, 62))
    offset = beta - channel.m8 * product  # 8 more fraction bits than the product
    down = torch.maximum(bit_length(product) - 15, bit_length(offset) - 8 - 23).clamp(min=0)
    return shift_round(product, down), shift_round(offset, down + 8), exponent + down


def _backward_constants(
    channel: _Channel, scale: FixedTensor, t1: Tensor, centred: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(P, Q, R, grid): dx = (P g + Q a + R) 2^grid in units of the error's step over the input's."""
    assert scale.exponent is not None
    gain, gain_exponent = normalize(scale.codes().long() * channel.root, 15)
    gain_exponent = gain_exponent + scale.exponent + channel.root_exponent
    if not channel.batch:  # running statistics are constants: the error only passes the scale
        down = (bit_length(gain) - 14).clamp(min=0)
        zero = torch.zeros_like(gain)
        return shift_round(gain, down), zero, zero, gain_exponent + down
    mantissa, lift = normalize(centred, 30)
    square = shift_round(channel.root * channel.root, 16)  # r^2 to 17 bits
    slope, slope_lift = normalize(divide_round(mantissa * square, channel.n), 15)
    slope_exponent = slope_lift + lift - 8 + 16 + 2 * channel.root_exponent  # k2 = slope 2^slope_exponent
    mean_error = divide_round(t1 << 16, channel.n)  # T1 / n, 16 fraction bits
    # P g + Q a + R with P = gain, Q = -gain slope, R = gain (m slope - T1/n), first on grids of their own
    q = -gain * slope
    moved = channel.m8 * slope  # 8 fraction bits more than slope_exponent says
    common = torch.maximum(slope_exponent - 8, torch.full_like(slope_exponent, -16))
    r = gain * (shift_round(moved, common - (slope_exponent - 8)) - shift_round(mean_error, common + 16))
    needed = torch.stack([
        bit_length(gain) - 14,
        torch.where(q != 0, bit_length(q) - 15 + slope_exponent, -64),
        torch.where(r != 0, bit_length(r) - 22 + common, -64),
    ])  # fmt: skip
    grid = needed.amax(0).clamp(min=-8)  # relative to gain_exponent; finer grids would add no bits to P
    p = shift_round(gain, grid)
    return (
        p,
        shift_round(q, (grid - slope_exponent).clamp(max=62)),
        shift_round(r, (grid - common).clamp(max=62)),
        (grid + gain_exponent),
    )
