"""Depthwise-separable network for keyword spotting."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from qtrain.models.model_info import ModelInfo, Shape

if TYPE_CHECKING:
    from torch import nn

WIDTH = 64
N_BLOCKS = 4
KERNEL = (10, 4)
STRIDE = 2


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after so that ceil(size / stride) outputs fit, the odd one after (TensorFlow)."""
    total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    return total // 2, total - total // 2


def dscnn(input_shape: Shape, n_classes: int) -> nn.Module:
    """A 10x4 convolution of stride 2 with "same" padding, four separable blocks, mean, one FC layer.

    The padding differs above and below (4 and 5 rows of 49), so it is a ZeroPad2d of its own.
    """
    from torch import nn

    from qtrain.models._blocks import separable, with_classifier

    in_channels, height, width = input_shape
    rows, columns = same_padding(height, KERNEL[0], STRIDE), same_padding(width, KERNEL[1], STRIDE)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        pad=nn.ZeroPad2d((*columns, *rows)),
        conv=nn.Conv2d(in_channels, WIDTH, KERNEL, STRIDE, bias=False),
        norm=nn.BatchNorm2d(WIDTH),
        relu=nn.ReLU(),
    )
    layers |= {f"block{i}": separable(WIDTH, WIDTH) for i in range(1, N_BLOCKS + 1)}
    layers["mean"] = nn.AdaptiveAvgPool2d(1)
    return with_classifier(nn.Sequential(layers), input_shape, n_classes)


MODELS = (
    ModelInfo(
        "dscnn", (1, 49, 10), 12, dscnn, "slim-lenet",
        "DS-CNN for keyword spotting on 49x10 MFCC (MLPerf Tiny), without dropout",
        "Zhang et al., Hello Edge, arXiv 1711.07128; Banbury et al., MLPerf Tiny Benchmark, 2021",
    ),
)  # fmt: skip
