"""Range batch normalization (Banner et al. 2018, section 3): no square, no root, a maximum and a minimum instead.

Per channel, with n elements: mean m8 as in batch normalization; deviation s = C(n) (max a - min a) + eps with 16
fraction bits; 1/s = r 2^e, r of 16 bits. Backward gamma/s (g - T1/n) for every element, and the deviation's share
-+ gamma C(n) T / s^2, T = T2 - m T1, for the first maximum and the first minimum alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hwmodel.operations import Layer, Widths
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.integers import bit_length, divide_round, power_of_two, reciprocal, shift_round
from qtrain.layers.norms.base import NormQuantizers
from qtrain.layers.norms.channel import ChannelNormUnit
from qtrain.layers.norms.constants import (
    OFFSET_BITS,
    Channel,
    Scaled,
    channel_sums,
    gain_of,
    on_common_grid,
    on_grid,
)
from qtrain.layers.norms.modules import range_share
from qtrain.layers.norms.running import blend, in_steps, settle, share_of
from qtrain.layers.tape import Tape


@dataclass(frozen=True, slots=True)
class _RangeChannel(Channel):
    """And where its first maximum and minimum lie: instance and pixel, int64 [2, C] each; instance -1 is gone."""

    highest: Tensor
    lowest: Tensor


class RangeNormUnit(ChannelNormUnit):
    """A RangeNorm in fixed point. Two elements a channel carry the whole range's share of the error, so that they set
    the error map's exponent: at 8 bits most of the others are flushed to zero, which the numerics report says."""

    def __init__(self, layer: Layer, module: Any, q: NormQuantizers, widths: Widths) -> None:
        super().__init__(layer, module, q)
        self.formats = FixedPoint(widths.mean_bits), FixedPoint(widths.variance_bits)
        settle(module.running_mean, self.formats[0])
        settle(module.running_scale, self.formats[1])
        self.share = share_of(module)

    def batch_statistics(self, a: Tensor, exponent: int, n: int) -> Channel:
        m8 = divide_round(channel_sums(a, 1) << 8, n)
        flat = a.transpose(0, 1).flatten(1)
        high, low = flat.max(1), flat.min(1)
        s16 = (high.values - low.values).long() * round(range_share(n) * 2**16)
        blend(self.module.running_mean, self.formats[0], m8, exponent - 8, self.share)
        blend(self.module.running_scale, self.formats[1], s16, exponent - 16, self.share)
        n_pixels = flat.shape[1] // len(a)
        places = (torch.stack([found.indices // n_pixels, found.indices % n_pixels]) for found in (high, low))
        root, e = self._reciprocal(s16, exponent)
        return _RangeChannel(m8, root, e, n, True, *places)

    def running_statistics(self, exponent: int) -> Channel:
        s16 = in_steps(self.module.running_scale, exponent, 16).clamp(0, 1 << 50)
        return Channel(in_steps(self.module.running_mean, exponent, 8), *self._reciprocal(s16, exponent), 0, False)

    def _reciprocal(self, s16: Tensor, exponent: int) -> tuple[Tensor, Tensor]:
        root, e = reciprocal(s16 + self.epsilon(exponent))
        return root, e + 16

    def going_back(self, channel: Channel, tape: Tape) -> Channel:
        if tape.narrowed is None or not isinstance(channel, _RangeChannel):
            return channel
        highest, lowest = (
            torch.stack([_position(rows, tape.narrowed), pixels]) for rows, pixels in (channel.highest, channel.lowest)
        )
        return replace(channel, highest=highest, lowest=lowest)

    def centred_error(
        self, g: Tensor, a: Tensor, channel: Channel, scale: FixedTensor, sums: tuple[Tensor, Tensor], lift: int
    ) -> Tensor:
        assert isinstance(channel, _RangeChannel)
        gain = gain_of(channel, scale)
        offset = Scaled(-gain.codes * divide_round(sums[0] << 16, channel.n), torch.full_like(gain.exponent, -16))
        centred = Scaled.narrow(sums[1], -8, 30)
        share = shift_round(centred.codes * channel.root, 16) * round(range_share(channel.n) * 2**16)
        k = Scaled.narrow(share, centred.exponent + channel.root_exponent, 15)
        extreme = Scaled(gain.codes * k.codes, k.exponent + gain.exponent)
        p, (r,), grid = on_common_grid(gain, [(offset, OFFSET_BITS)])
        dx = torch.addcmul(on_grid(r, grid + lift, g), on_grid(p, grid + lift, g), g)
        coarser = (bit_length(extreme.codes) - OFFSET_BITS + extreme.exponent - grid).clamp(min=0)
        coarser = torch.where(extreme.codes != 0, coarser, 0)
        x = shift_round(extreme.codes, (grid + coarser - extreme.exponent).clamp(max=62))
        planes = dx.flatten(2) if dx.dim() > 2 else dx.unsqueeze(2)
        for (rows, pixels), step in ((channel.highest, -x), (channel.lowest, x)):
            here = (rows >= 0).nonzero().flatten()
            place = rows[here], here, pixels[here]
            codes = (planes[place].double() * power_of_two(-(grid + lift)[here])).long()
            moved = shift_round(codes, coarser[here]) + step[here]
            planes[place] = (moved.double() * power_of_two((grid + lift + coarser)[here])).to(dx.dtype)
        return dx


def _position(rows: Tensor, kept: Tensor) -> Tensor:
    """Where each of `rows` lies among `kept`; -1 where it does not."""
    found = rows[:, None] == kept[None, :]
    return torch.where(found.any(1), found.int().argmax(1), -1)
