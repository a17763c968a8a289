"""Weighted sums of cross-entropies with target probabilities, in the numbers of the network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qtrain.formats.fixed import FixedTensor
from qtrain.layers.loss import cross_entropy


def probabilities(outputs: FixedTensor, n_classes: int | None = None) -> Tensor:
    """Softmax over the first `n_classes` outputs (None: all), float32 [n, classes]."""
    return F.softmax(outputs.values[:, :n_classes].float(), 1)


def part(outputs: FixedTensor, rows: Tensor) -> FixedTensor:
    """The outputs of some of the instances."""
    return FixedTensor(outputs.values[rows], outputs.exponent)


def weighted_sum(outputs: FixedTensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, float]:
    """Of the batch loss sum_i w_i CE(targets_i, outputs_i): (losses [n] without weights, error [n, C], scale), error x
    scale being the gradient as in qtrain.layers.loss.cross_entropy. targets [n, C] sum to 1; weights [n]."""
    losses, error, scale = cross_entropy(outputs, targets, weights)
    total = float(weights.double().sum())
    if outputs.exponent is None:
        return losses, error * total, scale
    return losses, error, scale * total


def averaged(outputs: FixedTensor, gradient: Tensor, n: int) -> tuple[Tensor, float]:
    """(error, scale) of a loss that is the mean of `n` terms, from the gradient [n', C] of their sum at the outputs: in
    fixed point the 1/n stays out of the error and goes into the update."""
    if outputs.exponent is None:
        return gradient / n, 1.0
    return gradient.to(outputs.values.dtype), 1.0 / n


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """float32 [n, n_classes]."""
    return F.one_hot(labels, n_classes).to(torch.float32)


def divergence(changed: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of sum_i KL(p(changed_i) || p(clean_i)) at the outputs [n, C] of both: (at changed, at clean)."""
    with torch.enable_grad():
        a, b = changed.detach().double().requires_grad_(), clean.detach().double().requires_grad_()
        log_p, log_q = F.log_softmax(a, 1), F.log_softmax(b, 1)
        at_a, at_b = torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), (a, b))
    return at_a.to(changed.dtype), at_b.to(clean.dtype)
