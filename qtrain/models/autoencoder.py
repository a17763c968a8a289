"""Fully connected networks: the anomaly-detection autoencoder and its filter network."""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import TYPE_CHECKING

from qtrain.models.model_info import ModelInfo, Shape

if TYPE_CHECKING:
    from torch import nn

HIDDEN = (128, 128, 128, 128, 8, 128, 128, 128, 128)
FILTER_HIDDEN = 32


def autoencoder(input_shape: Shape, n_classes: int) -> nn.Module:
    """Linear layers with batch normalization and ReLU down to 8 units and up again; the last is linear alone.

    [n, C, H, W] -> [n, C*H*W], the flattened input reconstructed; `n_classes` has no meaning here.
    """
    from torch import nn

    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    n_in = prod(input_shape)
    for i, n_out in enumerate(HIDDEN, start=1):
        layers[f"fc{i}"] = nn.Linear(n_in, n_out)
        layers[f"norm{i}"] = nn.BatchNorm1d(n_out)
        layers[f"relu{i}"] = nn.ReLU()
        n_in = n_out
    layers["fc"] = nn.Linear(n_in, prod(input_shape))
    return nn.Sequential(layers)


def slim_mlp(input_shape: Shape, n_classes: int) -> nn.Module:
    """One hidden layer with ReLU."""
    from torch import nn

    layers: OrderedDict[str, nn.Module] = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(prod(input_shape), FILTER_HIDDEN),
        relu1=nn.ReLU(),
        fc=nn.Linear(FILTER_HIDDEN, n_classes),
    )
    return nn.Sequential(layers)


VECTOR: Shape = (1, 1, 640)
MODELS = (
    ModelInfo(
        "autoencoder", VECTOR, 0, autoencoder, "slim-mlp",
        "640-128x4-8-128x4-640 autoencoder for anomaly detection (MLPerf Tiny)",
        "Banbury et al., MLPerf Tiny Benchmark, NeurIPS Datasets 2021: anomaly detection", "reconstruct",
    ),
    ModelInfo(
        "slim-mlp", VECTOR, 2, slim_mlp, "", "filter: one hidden layer of 32 units", "chosen here",
    ),
)  # fmt: skip
