"""Torch building blocks that several families share."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Biasless convolution padded by half its kernel, batch normalization, ReLU."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            norm=nn.BatchNorm2d(out_channels),
            relu=nn.ReLU(),
        )
    )


def separable(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3x3 then pointwise convolution, each with normalization and ReLU (Howard et al. 2017)."""
    return nn.Sequential(
        OrderedDict(
            depthwise=conv_bn_relu(in_channels, in_channels, stride=stride, groups=in_channels),
            pointwise=conv_bn_relu(in_channels, out_channels, kernel=1),
        )
    )


def n_features(body: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Elements of `body`'s output for one instance: the inputs of the linear layer that follows."""
    body.eval()  # one instance has no batch statistics, and running statistics stay as they are
    with torch.no_grad():
        n_out = body(torch.zeros(1, *input_shape)).numel()
    body.train()
    return n_out


def he_init(model: nn.Sequential) -> nn.Sequential:
    """Convolution weights N(0, 2 / fan-in), biases 0 (He et al. 2015): signals keep their size."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def with_classifier(body: nn.Sequential, input_shape: tuple[int, int, int], n_classes: int) -> nn.Sequential:
    """`body` followed by flatten and one linear layer of the right size; applies `he_init`."""
    n_in = n_features(body, input_shape)
    body.add_module("flatten", nn.Flatten())
    body.add_module("fc", nn.Linear(n_in, n_classes))
    return he_init(body)


class OptionA(nn.Module):
    """Shortcut without weights: every stride-th pixel, new channels zero (He et al. 2016, option A).

    [n, C, H, W] -> [n, out_channels, ceil(H/s), ceil(W/s)], the zero channels half before and half after.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        before = (out_channels - in_channels) // 2
        self.stride = stride
        self.padding = (0, 0, 0, 0, before, out_channels - in_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], self.padding)


class BasicBlock(nn.Module):
    """ResNet block: relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), 3x3 kernels (He et al. 2016)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.first = conv_bn_relu(in_channels, out_channels, stride=stride)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module
        if in_channels == out_channels and stride == 1:
            self.shortcut = nn.Sequential()  # empty: the identity, without a node in a traced graph
        elif projection:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        else:
            self.shortcut = OptionA(in_channels, out_channels, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.conv(self.first(x))) + self.shortcut(x))
