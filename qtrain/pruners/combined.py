"""Channel pruning, and stochastic pruning of what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.pruners.base import Pruned
from qtrain.pruners.channel import ChannelPruning
from qtrain.pruners.stochastic import StochasticGradientPruning, density

if TYPE_CHECKING:
    from qtrain.layers.tape import Tape


class CombinedPruning:
    """The channels are chosen by the error as it arrives; the density is that of the channels kept."""

    kind: ClassVar[str] = "channel+stochastic"
    thins: ClassVar[bool] = True

    def __init__(
        self,
        keep: float = 0.6,
        gamma_weight: float = 0.0,
        gamma_error: float = 1.0,
        rate: float = 0.9,
        window: int = 4,
        layers: Mapping[str, float] | None = None,
    ) -> None:
        self.channel = ChannelPruning(keep, gamma_weight, gamma_error, layers)
        self.stochastic = StochasticGradientPruning(rate, window)
        self.norms = self.channel.norms

    def prune(self, error: FixedTensor, weight: Tensor, layer: Layer, tape: Tape) -> Pruned:
        _, channels, _ = self.channel.prune(error, weight, layer, tape)
        thinned, _, left = self.stochastic.prune(error, weight, layer, tape)
        return Pruned(thinned, channels, left if channels is None else density(thinned[:, channels]))

    def keeps(self, layer: Layer) -> float:
        return self.channel.keeps(layer)

    def never_kept(self) -> dict[str, float]:
        """Share of each pruned layer's channels that no mini-batch has kept so far."""
        return self.channel.never_kept()

    def state(self) -> dict[str, Any]:
        return self.channel.state() | self.stochastic.state()

    def load_state(self, state: dict[str, Any]) -> None:
        self.channel.load_state(state)
        self.stochastic.load_state(state)


PRUNER = CombinedPruning
