"""A classifier of nearest neighbours on a network's outputs, and the loss an attack on it raises."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from qtrain.recipes.contrastive import directions

_LEAST_LENGTH = 1e-12
"""Of torch.nn.functional.normalize."""


@dataclass(frozen=True)
class Neighbours:
    """Votes of the `k` instances of a bank nearest to a representation, by Euclidean distance between directions.

    bank [n, d], labels int64 [n]. Each votes with weight exp(cosine / temperature).
    """

    bank: Tensor
    labels: Tensor
    n_classes: int
    k: int
    temperature: float

    def votes(self, outputs: Tensor) -> Tensor:
        """Shares of the votes [m, classes] for outputs [m, d]."""
        cosine, near = (directions(outputs) @ directions(self.bank).t()).topk(min(self.k, len(self.bank)), dim=1)
        weights = F.softmax(cosine / self.temperature, 1)
        return outputs.new_zeros(len(outputs), self.n_classes).scatter_add_(1, self.labels[near], weights)

    def predict(self, outputs: Tensor) -> Tensor:
        """The class with most votes, int64 [m]."""
        return self.votes(outputs).argmax(1)

    def slope(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Gradient [m, d] of the sum of -log share of `labels` [m] at the outputs, in float. All of the bank votes
        here: where the k nearest are of one class their shares have no slope."""
        z, bank = directions(outputs), directions(self.bank)
        weights = F.softmax(z @ bank.t() / self.temperature, 1)
        of_class = weights * (self.labels == labels.view(-1, 1))
        share = of_class.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
        at_z = (weights - of_class / share) / self.temperature @ bank  # of -log share at the direction
        along = (at_z * z).sum(1, keepdim=True) * z  # a longer output has the same direction
        return (at_z - along) / outputs.norm(dim=1, keepdim=True).clamp(min=_LEAST_LENGTH)
