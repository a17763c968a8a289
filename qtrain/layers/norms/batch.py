"""Batch normalization (Ioffe & Szegedy 2015), and the same with its statistics frozen.

Per channel, with n elements, S1 = sum a and S2 = sum a^2:
    mean      m8  = round(2^8 S1 / n)                                  (8 fraction bits)
    variance  v16 = max(2^8 round(2^8 S2 / n) - m8^2, 0) + eps         (16 fraction bits, in units of a's step squared)
    1/sqrt    r 2^e, r of 16 bits (formats.integers.inverse_sqrt)
and backward gamma/sqrt(v) (g - T1/n - (a - m) (T2 - m T1) / (n v)).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hwmodel.operations import Layer, Widths
from qtrain.engine import norm as compiled
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.integers import divide_round, inverse_sqrt
from qtrain.layers.norms.base import NormQuantizers
from qtrain.layers.norms.channel import ChannelNormUnit
from qtrain.layers.norms.constants import (
    OFFSET_BITS,
    SLOPE_BITS,
    Channel,
    Scaled,
    centring,
    channel_sums,
    gain_of,
    on_common_grid,
    on_grid,
)
from qtrain.layers.norms.running import blend, in_steps, settle, share_of
from qtrain.layers.tape import Tape


class BatchNormUnit(ChannelNormUnit):
    """BatchNorm1d or 2d; of kind "frozennorm" always by its running statistics, which stay as they are."""

    def __init__(self, layer: Layer, module: Any, q: NormQuantizers, widths: Widths) -> None:
        super().__init__(layer, module, q)
        self.learns_statistics = layer.kind == "batchnorm"
        self.formats = FixedPoint(widths.mean_bits), FixedPoint(widths.variance_bits)
        settle(module.running_mean, self.formats[0])
        settle(module.running_var, self.formats[1])
        self.share = share_of(module)

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        done = compiled.forward(self, tape, x)
        return super().forward(tape, x) if done is None else done

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        if compiled.took(self, tape):
            return compiled.backward(self, tape, error, needed)
        return super().backward(tape, error, needed)

    def batch_statistics(self, a: Tensor, exponent: int, n: int) -> Channel:
        s1, s2 = channel_sums(a, 1), channel_sums(a.square(), 2)
        m8 = divide_round(s1 << 8, n)
        v16 = ((divide_round(s2 << 8, n) << 8) - m8 * m8).clamp(min=0)
        blend(self.module.running_mean, self.formats[0], m8, exponent - 8, self.share)
        blend(self.module.running_var, self.formats[1], v16, 2 * exponent - 16, self.share)
        return self._channel(m8, v16, exponent, n)

    def running_statistics(self, exponent: int) -> Channel:
        v16 = in_steps(self.module.running_var, 2 * exponent, 16).clamp(0, 1 << 50)
        return self._channel(in_steps(self.module.running_mean, exponent, 8), v16, exponent, 0)

    def _channel(self, m8: Tensor, v16: Tensor, exponent: int, n: int) -> Channel:
        root, e = inverse_sqrt(v16 + self.epsilon(2 * exponent))
        return Channel(m8, root, e + 8, n, n > 0)  # v16 has 16 fraction bits: 1/sqrt gains 8

    def centred_error(
        self, g: Tensor, a: Tensor, channel: Channel, scale: FixedTensor, sums: tuple[Tensor, Tensor], lift: int
    ) -> Tensor:
        gain = gain_of(channel, scale)
        slope, offset = centring(channel, gain.codes, sums[0], Scaled.narrow(sums[1], -8, 30))
        p, (q, r), grid = on_common_grid(gain, [(slope, SLOPE_BITS), (offset, OFFSET_BITS)])
        p, q, r = (on_grid(constant, grid + lift, g) for constant in (p, q, r))
        return torch.addcmul(r, p, g).addcmul_(q, a)
