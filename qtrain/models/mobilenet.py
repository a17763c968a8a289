"""MobileNet v1 with a quarter of the channels."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from qtrain.models.model_info import ModelInfo, Shape

if TYPE_CHECKING:
    from torch import nn

FIRST = 8
BLOCKS = (
    (16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2),
    (128, 1), (128, 1), (128, 1), (128, 1), (128, 1), (256, 2), (256, 1),
)  # fmt: skip
"""Output channels and stride of each separable block: Howard et al., table 1, times 0.25."""


def mobilenetv1_quarter(input_shape: Shape, n_classes: int) -> nn.Module:
    """A strided convolution, thirteen separable blocks, mean, one FC layer; padding 1 on every side."""
    from torch import nn

    from qtrain.models._blocks import conv_bn_relu, separable, with_classifier

    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn_relu(input_shape[0], FIRST, stride=2))
    in_channels = FIRST
    for i, (out_channels, stride) in enumerate(BLOCKS, start=1):
        layers[f"block{i}"] = separable(in_channels, out_channels, stride)
        in_channels = out_channels
    layers["mean"] = nn.AdaptiveAvgPool2d(1)
    return with_classifier(nn.Sequential(layers), input_shape, n_classes)


MODELS = (
    ModelInfo(
        "mobilenetv1-0.25", (3, 96, 96), 2, mobilenetv1_quarter, "resnet8-a-pooled",
        "MobileNet v1 x 0.25 for 96x96 images (visual wake words of MLPerf Tiny)",
        "Howard et al., arXiv 1704.04861; Banbury et al., MLPerf Tiny Benchmark, 2021",
    ),
)  # fmt: skip
