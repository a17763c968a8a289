"""Multiply-accumulates of every model, derived layer by layer: outputs x products per output, padding counted."""

import pytest
import torch
from torch import nn

from qtrain import models


def counted(name: str, input_shape=None) -> list[int]:
    """MACs of each conv and linear layer, in the order they are reached, from the tensors that pass."""
    info = models.info(name, input_shape)
    model = models.build(name, input_shape)
    found: list[int] = []

    def note(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        found.append(output[0].numel() * module.weight[0].numel())

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(note)
    model.eval()(torch.zeros(1, *info.input_shape))
    return found


def block(c_in: int, c_out: int, size: int, projection: bool) -> list[int]:
    """A ResNet block with size x size outputs: two 3x3 convolutions, then the shortcut where it has weights."""
    convs = [size**2 * c_out * c_in * 9, size**2 * c_out * c_out * 9]
    return [*convs, size**2 * c_out * c_in] if projection and c_in != c_out else convs


def resnet(n: int, *, stem: int, width: int, c_in: int = 3, projection: bool = False, classes: int = 10) -> list[int]:
    """First convolution with stem x stem outputs; the stages have stem, stem/2 and stem/4."""
    layers = [stem**2 * width * c_in * 9]
    before = width
    for stage in range(3):
        after, size = width * 2**stage, -(-stem // 2**stage)
        for _ in range(n):
            layers += block(before, after, size, projection)
            before = after
    return [*layers, before * classes]


def separable(c_in: int, c_out: int, height: int, width: int) -> list[int]:
    """Depthwise 3x3: 9 products an output; pointwise: c_in."""
    return [height * width * c_in * 9, height * width * c_in * c_out]


def vgg16() -> list[int]:
    layers, c_in, size = [], 3, 32
    for widths in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        for c_out in widths:
            layers.append(size**2 * c_out * c_in * 9)
            c_in = c_out
        size //= 2
    return [*layers, 512 * 10]  # 32 / 2^5 = 1 pixel is left


def mobilenet() -> list[int]:
    layers = [48**2 * 8 * 3 * 9]
    c_in = 8
    for c_out, size in ((16, 48), (32, 24), (32, 24), (64, 12), (64, 12), *[(128, 6)] * 6, (256, 3), (256, 3)):
        depthwise = size**2 * c_in * 9
        layers += [depthwise, size**2 * c_in * c_out]
        c_in = c_out
    return [*layers, 256 * 2]


# lenet5: 28x28 padded by 2 stays 28x28, pool 14, valid 5x5 gives 10, pool 5: 16 * 25 = 400 features
LENET5 = [28**2 * 6 * 25, 10**2 * 16 * 6 * 25, 400 * 120, 120 * 84, 84 * 10]
# lenet: 28 - 4 = 24, pool 12, 12 - 4 = 8, pool 4: 50 * 16 = 800 features
LENET = [24**2 * 20 * 25, 8**2 * 50 * 20 * 25, 800 * 500, 500 * 10]
# 49x10 at stride 2 with "same" padding: 25x5 outputs of 10 * 4 products
DSCNN = [25 * 5 * 64 * 40, *separable(64, 64, 25, 5) * 4, 64 * 12]
ENCODER = [640 * 128, 128 * 128, 128 * 128, 128 * 128, 128 * 8]

LAYERS = {
    "resnet8": (resnet(1, stem=32, width=16, projection=True), 12_501_632),
    "resnet20": (resnet(3, stem=32, width=16), 40_551_040),
    "resnet32": (resnet(5, stem=32, width=16), 68_862_592),
    "resnet44": (resnet(7, stem=32, width=16), 97_174_144),
    "resnet56": (resnet(9, stem=32, width=16), 125_485_696),
    "resnet74": (resnet(12, stem=32, width=16), 167_953_024),
    "resnet110": (resnet(18, stem=32, width=16), 252_887_680),
    "vgg16": (vgg16(), 313_201_664),
    "mobilenetv1-0.25": (mobilenet(), 7_489_664),
    "dscnn": (DSCNN, 2_656_768),
    "autoencoder": (ENCODER + ENCODER[::-1], 264_192),
    "lenet": (LENET, 2_293_000),
    "lenet5": (LENET5, 416_520),
    "digits-cnn": ([8**2 * 16 * 9, 8**2 * 32 * 16 * 9, 4 * 4 * 32 * 10], 309_248),
    "resnet8-a": (resnet(1, stem=32, width=16, classes=2), 12_238_976),
    "resnet8-a-slim": (resnet(1, stem=16, width=12, classes=2), 1_741_920),
    "resnet8-a-slimmer": (resnet(1, stem=16, width=8, classes=2), 792_640),
    "resnet8-a-pooled": (resnet(1, stem=4, width=8, classes=2), 49_600),
    "slim-lenet": ([28**2 * 6 * 9, 14**2 * 16 * 6 * 9, 7 * 7 * 16 * 2], 213_248),
    "slimmer-lenet": ([14**2 * 6 * 9, 7**2 * 8 * 6 * 9, 3 * 3 * 8 * 2], 31_896),
    "slim-mlp": ([640 * 32, 32 * 2], 20_544),
}


def test_every_shipped_model_is_derived_here() -> None:
    assert set(LAYERS) == set(models.names())


@pytest.mark.parametrize("name", LAYERS)
def test_macs_layer_by_layer(name: str) -> None:
    layers, total = LAYERS[name]
    assert counted(name) == layers
    assert sum(layers) == total


@pytest.mark.parametrize("name", [name for name in LAYERS if models.default_filter(name)])
def test_default_filter_costs_at_most_a_tenth_of_the_forward(name: str) -> None:
    shape = models.info(name).input_shape
    share = sum(counted(models.default_filter(name), shape)) / LAYERS[name][1]
    assert share <= (0.06 if name == "resnet20" else 0.10)


def test_the_papers_stated_filter_overheads() -> None:
    """Wu et al. 2020: filter inference is 5.0 % of ResNet-110, 4.1 % of VGG-16 and 9.5 % of LeNet."""
    for name, stated in (("resnet110", 0.050), ("vgg16", 0.041), ("lenet", 0.095)):
        share = sum(counted(models.default_filter(name), models.info(name).input_shape)) / LAYERS[name][1]
        assert share == pytest.approx(stated, abs=0.003)
