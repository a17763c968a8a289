"""Small plain convolutional networks for digits, and their filter networks."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from qtrain.models.model_info import ModelInfo, Shape

if TYPE_CHECKING:
    from torch import nn

MNIST: Shape = (1, 28, 28)
LECUN = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 86(11), 1998"
WU = "Wu et al., arXiv 2007.03213 (IEEE TCAD 2020)"


def convnet(
    input_shape: Shape,
    n_classes: int,
    *,
    channels: tuple[int, int],
    kernel: int,
    paddings: tuple[int, int],
    hidden: tuple[int, ...] = (),
    stride: int = 1,
    first_pool: bool = True,
) -> nn.Module:
    """Two convolutions with ReLU, 2x2 max-pools (the first with `first_pool` only), linear layers.

    `stride` is the first convolution's; `hidden` are the sizes of the linear layers before the last.
    """
    from torch import nn

    from qtrain.models._blocks import he_init, n_features

    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv1"] = nn.Conv2d(input_shape[0], channels[0], kernel, stride, paddings[0])
    layers["relu1"] = nn.ReLU()
    if first_pool:
        layers["pool1"] = nn.MaxPool2d(2)
    layers["conv2"] = nn.Conv2d(channels[0], channels[1], kernel, 1, paddings[1])
    layers["relu2"] = nn.ReLU()
    layers["pool2"] = nn.MaxPool2d(2)
    n_in = n_features(nn.Sequential(layers), input_shape)
    layers["flatten"] = nn.Flatten()
    for i, n_out in enumerate(hidden, start=1):
        layers[f"fc{i}"] = nn.Linear(n_in, n_out)
        layers[f"relu_fc{i}"] = nn.ReLU()
        n_in = n_out
    layers["fc"] = nn.Linear(n_in, n_classes)
    return he_init(nn.Sequential(layers))


MODELS = (
    ModelInfo(
        "digits-cnn", (1, 8, 8), 10,
        partial(convnet, channels=(16, 32), kernel=3, paddings=(1, 1), first_pool=False), "slim-lenet",
        "two 3x3 convolutions of 16 and 32 filters for 8x8 digits", "chosen here",
    ),
    ModelInfo(
        "lenet5", MNIST, 10,
        partial(convnet, channels=(6, 16), kernel=5, paddings=(2, 0), hidden=(120, 84)), "slimmer-lenet",
        "LeNet-5 with ReLU, max-pooling and a padded first convolution", LECUN,
    ),
    ModelInfo(
        "lenet", MNIST, 10,
        partial(convnet, channels=(20, 50), kernel=5, paddings=(0, 0), hidden=(500,)), "slim-lenet",
        "LeNet with 20 and 50 filters and 500 hidden units", WU + ": MNIST network",
    ),
    ModelInfo(
        "slim-lenet", MNIST, 2, partial(convnet, channels=(6, 16), kernel=3, paddings=(1, 1)), "",
        "filter: 3x3 convolutions of 6 and 16 filters", WU + ": filter network for MNIST",
    ),
    ModelInfo(
        "slimmer-lenet", MNIST, 2, partial(convnet, channels=(6, 8), kernel=3, paddings=(1, 1), stride=2), "",
        "filter: slim-lenet with stride 2 first and 6 and 8 filters",
        "slim-lenet, made slimmer here to stay within 10 % of the main network's MACs",
    ),
)  # fmt: skip
