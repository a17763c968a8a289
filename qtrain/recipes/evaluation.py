"""Inference on whole sets of instances, recorded nowhere: what accuracies are measured by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qtrain.formats.fixed import FixedTensor
from qtrain.layers import QuantizedNetwork
from qtrain.recipes.features import features

BATCH = 500
Losses = Callable[[FixedTensor, Tensor], Tensor]
"""From outputs [n, outputs] and labels [n] to losses [n]."""


def outputs(net: QuantizedNetwork, images: Tensor) -> Tensor:
    """The network's outputs [n, outputs] on images [n, C, H, W]."""
    parts = [net.run(part, training=False, record=False)[0].values for part in images.split(BATCH)]
    return torch.cat(parts)


def representations(net: QuantizedNetwork, images: Tensor) -> Tensor:
    """The features [n, features] that the network's last layer reads."""
    parts = [features(net, net.run(part, training=False, record=False)[1]) for part in images.split(BATCH)]
    return torch.cat(parts)


def classify(
    net: QuantizedNetwork, images: Tensor, labels: Tensor, losses: Losses, n_classes: int | None = None
) -> tuple[float, float]:
    """(share right, mean loss); of the outputs only the first `n_classes` are classes (None: all)."""
    right, total = 0, 0.0
    for part, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        logits, _ = net.run(part, training=False, record=False)
        total += float(losses(logits, wanted).double().sum())
        right += int((logits.values[:, :n_classes].argmax(1).cpu() == wanted).sum())
    n = max(len(images), 1)
    return right / n, total / n
