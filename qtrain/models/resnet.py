"""Residual networks for small images, and the slim ones used as instance filters."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from qtrain.models.model_info import ModelInfo, Shape

if TYPE_CHECKING:
    from torch import nn

CIFAR: Shape = (3, 32, 32)
HE = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2 (option-A shortcuts)"
MLPERF = "Banbury et al., MLPerf Tiny Benchmark, NeurIPS Datasets 2021: image classification reference model"
WU = "Wu et al., arXiv 2007.03213 (IEEE TCAD 2020): filter network ResNet-8"
OWN = "ResNet-8 of " + WU + "; made slimmer here to stay within 10 % of the main network's MACs"


def resnet(
    input_shape: Shape,
    n_classes: int,
    *,
    n_blocks: int,
    width: int = 16,
    projection: bool = False,
    stride: int = 1,
    pool: int = 1,
) -> nn.Module:
    """A convolution, three stages of `n_blocks` blocks (1, 2, 4 times `width` channels), mean, one FC layer.

    `projection`: biasless 1x1 convolutions as shortcuts instead of option A; `stride`: of the first
    convolution; `pool`: the image is first averaged over pool x pool pixels.
    """
    from torch import nn

    from qtrain.models._blocks import BasicBlock, conv_bn_relu, with_classifier

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if pool > 1:
        layers["shrink"] = nn.AvgPool2d(pool)
    layers["stem"] = conv_bn_relu(input_shape[0], width, stride=stride)
    in_channels = width
    for stage, out_channels in enumerate((width, 2 * width, 4 * width), start=1):
        for block in range(1, n_blocks + 1):
            down = 2 if stage > 1 and block == 1 else 1
            layers[f"stage{stage}_{block}"] = BasicBlock(in_channels, out_channels, down, projection)
            in_channels = out_channels
    layers["mean"] = nn.AdaptiveAvgPool2d(1)
    return with_classifier(nn.Sequential(layers), input_shape, n_classes)


def _deep(depth: int, filter_name: str) -> ModelInfo:
    """ResNet of 6 n + 2 weight layers for CIFAR."""
    return ModelInfo(
        f"resnet{depth}", CIFAR, 10, partial(resnet, n_blocks=(depth - 2) // 6), filter_name,
        f"ResNet-{depth} for 32x32 images", HE,
    )  # fmt: skip


def _filter(
    name: str, description: str, source: str = OWN, width: int = 16, stride: int = 1, pool: int = 1
) -> ModelInfo:
    builder = partial(resnet, n_blocks=1, width=width, stride=stride, pool=pool)
    return ModelInfo(name, CIFAR, 2, builder, "", description, source)


MODELS = (
    ModelInfo(
        "resnet8", CIFAR, 10, partial(resnet, n_blocks=1, projection=True), "resnet8-a-slimmer",
        "ResNet-8 of MLPerf Tiny (1x1 projection shortcuts)", MLPERF,
    ),
    _deep(20, "resnet8-a-slim"),
    _deep(32, "resnet8-a-slim"),
    _deep(44, "resnet8-a-slim"),
    _deep(56, "resnet8-a"),
    _deep(74, "resnet8-a"),
    _deep(110, "resnet8-a"),
    _filter("resnet8-a", "filter: ResNet-8 with option-A shortcuts", WU),
    _filter("resnet8-a-slim", "filter: stride 2 first, 12/24/48 channels", width=12, stride=2),
    _filter("resnet8-a-slimmer", "filter: stride 2 first, 8/16/32 channels", width=8, stride=2),
    _filter("resnet8-a-pooled", "filter: 4x4 mean, stride 2, 8/16/32 channels", width=8, stride=2, pool=4),
)  # fmt: skip
