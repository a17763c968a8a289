"""VGG for small images."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from qtrain.models.model_info import ModelInfo, Shape

if TYPE_CHECKING:
    from torch import nn

VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Configuration D of Simonyan and Zisserman, table 1."""


def vgg16(input_shape: Shape, n_classes: int) -> nn.Module:
    """Thirteen 3x3 convolutions with BatchNorm and ReLU, a 2x2 max-pool after each stage, one FC layer."""
    from torch import nn

    from qtrain.models._blocks import conv_bn_relu, with_classifier

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    in_channels = input_shape[0]
    for stage, widths in enumerate(VGG16_STAGES, start=1):
        for i, out_channels in enumerate(widths, start=1):
            layers[f"conv{stage}_{i}"] = conv_bn_relu(in_channels, out_channels)
            in_channels = out_channels
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    return with_classifier(nn.Sequential(layers), input_shape, n_classes)


MODELS = (
    ModelInfo(
        "vgg16", (3, 32, 32), 10, vgg16, "resnet8-a", "VGG-16 with batch normalization and one FC layer",
        "Simonyan and Zisserman, arXiv 1409.1556, configuration D; BatchNorm and one FC as usual for CIFAR",
    ),
)  # fmt: skip
