"""The torch modules of the normalizations PyTorch lacks, for [n, C, H, W] and [n, C], and what each module is called.

Their parameters and buffers have BatchNorm's names, so that weights move from one to the other.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from qtrain.layers.norms.running import share_of


def range_share(n: int) -> float:
    """C(n) = 1 / sqrt(2 ln n), n >= 2: a Gaussian sample's range times it is about two deviations (Banner et al. 2018,
    section 3)."""
    return 1.0 / math.sqrt(2.0 * math.log(n))


class RangeNorm(nn.Module):
    """Range batch normalization, (x - mean) / (C(n) (max - min) + eps) by channel, times weight plus bias.

    Banner et al. 2018, "Scalable Methods for 8-bit Training of Neural Networks", section 3. At inference the running
    mean and the running C(n) (max - min), `running_scale`, take the batch's place; so they do for fewer than two
    elements a channel.
    """

    def __init__(self, n_features: int, eps: float = 1e-5, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = n_features, eps, momentum
        self.weight = nn.Parameter(torch.ones(n_features))
        self.bias = nn.Parameter(torch.zeros(n_features))
        self.running_mean: Tensor
        self.running_scale: Tensor
        self.register_buffer("running_mean", torch.zeros(n_features))
        self.register_buffer("running_scale", torch.ones(n_features))

    def forward(self, x: Tensor) -> Tensor:
        n = x.numel() // self.num_features
        if self.training and n > 1:
            flat = x.transpose(0, 1).flatten(1)
            mean = flat.mean(1)
            scale = range_share(n) * (flat.max(1).values - flat.min(1).values)
            with torch.no_grad():
                self.running_mean.lerp_(mean, share_of(self))
                self.running_scale.lerp_(scale, share_of(self))
        else:
            mean, scale = self.running_mean, self.running_scale
        view = (1, -1, *([1] * (x.dim() - 2)))
        gain = self.weight / (scale + self.eps)
        return (x - mean.view(view)) * gain.view(view) + self.bias.view(view)


class FrozenNorm(_BatchNorm):
    """BatchNorm by its running statistics even while training; scale and shift still learn."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


KINDS: dict[type[nn.Module], str] = {
    nn.BatchNorm2d: "batchnorm",
    nn.BatchNorm1d: "batchnorm",
    nn.GroupNorm: "groupnorm",
    RangeNorm: "rangenorm",
    FrozenNorm: "frozennorm",
}
"""The kind of layer each module is."""
