"""Normalizations whose constants are one a channel: statistics of the batch, or running ones."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from qtrain.formats.fixed import FixedTensor
from qtrain.formats.integers import power_of_two
from qtrain.layers.norms.base import NormUnit, real, slope_terms
from qtrain.layers.norms.constants import Channel, affine, channel_sums, gain_of, on_common_grid, on_grid
from qtrain.layers.quantizer import Clock
from qtrain.layers.tape import Tape

MIN_ELEMENTS = 2
"""A variance or a range needs two elements; PyTorch refuses a training batch of one."""


class ChannelNormUnit(NormUnit):
    """Constants from the batch's own statistics while training, else from running ones.

    A batch of fewer than MIN_ELEMENTS elements a channel, an empty one included, is normalized by the running
    statistics, leaves them as they are, and sends its error through them as constants.
    """

    learns_statistics = True

    @abstractmethod
    def batch_statistics(self, a: Tensor, exponent: int, n: int) -> Channel:
        """Constants of the codes `a`, n a channel; the running statistics move."""

    @abstractmethod
    def running_statistics(self, exponent: int) -> Channel:
        """Constants for codes of step 2^exponent."""

    def of_batch(self, tape: Tape, n: int) -> bool:
        """Whether n elements a channel are normalized by their own statistics."""
        return self.learns_statistics and tape.training and n >= MIN_ELEMENTS

    def statistics(self, a: Tensor, exponent: int, tape: Tape) -> Channel:
        n = a.numel() // a.shape[1]
        return self.batch_statistics(a, exponent, n) if self.of_batch(tape, n) else self.running_statistics(exponent)

    def inference_affine(self, exponent: int) -> tuple[Tensor, Tensor]:
        """(gain, offset), float64 [C]: with running statistics a stored value x = a 2^exponent gives gain x + offset
        before the output's quantizer."""
        channel = self.running_statistics(exponent)
        gain, offset, grid = affine(channel, *self.parameters(Tape(Clock(0, 0), training=False)))
        return gain * power_of_two(grid - exponent), offset * power_of_two(grid)

    def sums(self, g: Tensor, a: Tensor, channel: Channel) -> tuple[Tensor, Tensor]:
        t1, t2 = channel_sums(g, 1), channel_sums(g * a, 2)
        return t1, (t2 << 8) - channel.m8 * t1

    def slope(self, centred: Tensor, channel: Channel) -> Tensor:
        return real(slope_terms(centred, channel))

    def input_error(
        self, g: Tensor, a: Tensor, channel: Channel, scale: FixedTensor, sums: tuple[Tensor, Tensor], lift: int
    ) -> Tensor:
        if channel.batch:
            return self.centred_error(g, a, channel, scale, sums, lift)
        p, _, grid = on_common_grid(gain_of(channel, scale), [])  # constants: the error only passes the scale
        return g * on_grid(p, grid + lift, g)

    @abstractmethod
    def centred_error(
        self, g: Tensor, a: Tensor, channel: Channel, scale: FixedTensor, sums: tuple[Tensor, Tensor], lift: int
    ) -> Tensor:
        """`input_error` where the error flows through the batch's statistics."""
