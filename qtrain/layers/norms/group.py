"""Group normalization (Wu & He 2018): mean and variance of one instance's group of channels.

The constants are batch normalization's, by instance: sums of a group's codes give m8, v16 and the root, scale and
shift make them the channel's own. Backward, with sums over the group of gamma g (U1) and of gamma g (a - m) (U2):
r (gamma g - U1/n - (a - m) U2 / (n v)). No statistics run, so that training and inference are alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from hwmodel.operations import Layer, Widths
from qtrain.formats.fixed import FixedTensor
from qtrain.formats.integers import bit_length, divide_round, inverse_sqrt, normalize, shift_round
from qtrain.layers.norms.base import NormQuantizers, NormUnit, real, slope_terms
from qtrain.layers.norms.constants import (
    OFFSET_BITS,
    SLOPE_BITS,
    Channel,
    Scaled,
    centring,
    gain_of,
    instance_sums,
    on_common_grid,
    on_grid,
)
from qtrain.layers.quantizer import Clock
from qtrain.layers.tape import Tape

SUM_BITS = 30
"""Of each term summed over a group or over a batch's instances, the largest as it is, the others on its grid."""


class GroupNormUnit(NormUnit):
    """torch.nn.GroupNorm in fixed point. Constants are [n, C]."""

    def __init__(self, layer: Layer, module: Any, q: NormQuantizers, widths: Widths) -> None:
        super().__init__(layer, module, q)
        self.n_groups = layer.groups

    def statistics(self, a: Tensor, exponent: int, tape: Tape) -> Channel:
        n = self.layer.n_out // self.n_groups
        s1, s2 = (self._by_group(instance_sums(x, f).long()).sum(2) for x, f in ((a, 1), (a.square(), 2)))
        m8 = divide_round(s1 << 8, n)
        v16 = ((divide_round(s2 << 8, n) << 8) - m8 * m8).clamp(min=0)
        root, e = inverse_sqrt(v16 + self.epsilon(2 * exponent))
        m8, root, e = (self._by_channel(x) for x in (m8, root, e + 8))
        return Channel(m8, root, e, n, True)

    def _by_group(self, x: Tensor) -> Tensor:
        """[n, C] -> [n, groups, channels of one]."""
        return x.view(len(x), self.n_groups, self.layer.out_channels // self.n_groups)

    def _by_channel(self, x: Tensor) -> Tensor:
        """[n, groups] -> [n, C]."""
        return x.repeat_interleave(self.layer.out_channels // self.n_groups, 1)

    def inference_module(self) -> nn.GroupNorm:
        """The module with scale and shift as they compute; its statistics are floats, the unit's integers."""
        module = nn.GroupNorm(self.n_groups, self.layer.out_channels, self.module.eps)
        scale, shift = self.parameters(Tape(Clock(0, 0), training=False))
        module.load_state_dict({"weight": scale.values.float(), "bias": shift.values.float()})
        return module

    def going_back(self, channel: Channel, tape: Tape) -> Channel:
        kept = tape.narrowed
        if kept is None:
            return channel
        return replace(channel, m8=channel.m8[kept], root=channel.root[kept], root_exponent=channel.root_exponent[kept])

    def sums(self, g: Tensor, a: Tensor, channel: Channel) -> tuple[Tensor, Tensor]:
        t1, t2 = instance_sums(g, 1).long(), instance_sums(g * a, 2).long()
        return t1, (t2 << 8) - channel.m8 * t1

    def slope(self, centred: Tensor, channel: Channel) -> Tensor:
        terms = slope_terms(centred, channel)
        if not len(centred):
            return centred.new_zeros(centred.shape[1], dtype=torch.float64)
        tops = torch.where(terms.codes != 0, bit_length(terms.codes) + terms.exponent, -512)
        grid = (tops.amax(0) - SUM_BITS).clamp(min=-512)
        moved = shift_round(terms.codes, (grid - terms.exponent).clamp(-62, 62))
        return real(Scaled(moved.sum(0), grid))

    def input_error(
        self, g: Tensor, a: Tensor, channel: Channel, scale: FixedTensor, sums: tuple[Tensor, Tensor], lift: int
    ) -> Tensor:
        assert scale.exponent is not None
        gamma = scale.codes().long()
        narrow = (bit_length(gamma).amax() - 15).clamp(min=0)
        gamma = shift_round(gamma, narrow)
        down = (bit_length(self._by_group(sums[1])).amax(2) - SUM_BITS).clamp(min=0)  # [n, groups]
        centred = shift_round(sums[1], self._by_channel(down))
        u1, u2 = (self._by_channel(self._by_group(gamma * x).sum(2)) for x in (sums[0], centred))
        rest, rest_exponent = normalize(channel.root, 15)
        rest_exponent = rest_exponent + channel.root_exponent + scale.exponent + narrow
        gain = gain_of(channel, scale)
        slope, offset = centring(channel, rest, u1, Scaled.narrow(u2, self._by_channel(down) - 8, 30))
        beside = rest_exponent - gain.exponent
        slope, offset = (Scaled(t.codes, t.exponent + beside) for t in (slope, offset))
        p, (q, r), grid = on_common_grid(gain, [(slope, SLOPE_BITS), (offset, OFFSET_BITS)])
        p, q, r = (on_grid(constant, grid + lift, g) for constant in (p, q, r))
        return torch.addcmul(r, p, g).addcmul_(q, a)
