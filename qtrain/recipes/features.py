"""What a network knows before its last layer."""

from __future__ import annotations

from torch import Tensor

from hwmodel.operations import MAC_KINDS
from qtrain.layers import QuantizedNetwork
from qtrain.layers.tape import Tape


def features(net: QuantizedNetwork, tape: Tape) -> Tensor:
    """The input [n, features] of the last conv or linear layer in the forward pass that left `tape`, before its
    backward pass. A recipe without labels takes that layer as its projection (Chen et al. 2020, arXiv 2002.05709,
    have a second hidden layer there; a network can bring one)."""
    last = next(layer for layer in reversed(net.network.layers) if layer.kind in MAC_KINDS)
    per_instance, _ = tape.saved[last.name]
    source: Tensor = per_instance[0]
    return source.flatten(1)
