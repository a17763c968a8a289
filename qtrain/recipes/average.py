"""The moving average of a network's weights: what some recipes evaluate in place of the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qtrain.layers import QuantizedNetwork


class WeightAverage:
    """mean <- d mean + (1 - d) w after each update, d = min(decay, (1 + t) / (10 + t)) at the t-th update: a short
    run's average would otherwise still hold its first weights (the ramp is ours)."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.weights: dict[str, Tensor] = {}

    def update(self, model: nn.Module) -> None:
        """Take the present weights in."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.n_updates += 1
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in self.weights:
                    self.weights[name].mul_(decay).add_(parameter.detach(), alpha=1 - decay)
                else:
                    self.weights[name] = parameter.detach().clone()

    @staticmethod
    def n_bytes(model: nn.Module) -> int:
        """Bytes of the average, which is kept in float32."""
        return 4 * sum(parameter.numel() for parameter in model.parameters())

    @contextmanager
    def put_in(self, net: QuantizedNetwork) -> Iterator[None]:
        """Evaluate inside with the averaged weights, which are quantized as the weights are."""
        own = {name: parameter.data for name, parameter in net.model.named_parameters()}
        try:
            for name, parameter in net.model.named_parameters():
                parameter.data = self.weights.get(name, parameter.data)
            yield
        finally:
            for name, parameter in net.model.named_parameters():
                parameter.data = own[name]
