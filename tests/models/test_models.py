"""What holds for every shipped model, and the errors of asking for one."""

import subprocess
import sys

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from qtrain import data, models
from qtrain.errors import QtrainError

QUICK = [name for name in models.names() if name not in ("resnet110", "resnet74", "vgg16")]
FIRST_SHAPE_PER_FAMILY = [
    ("resnet20", (1, 28, 28), 7), ("resnet8", (3, 33, 47), 5), ("lenet5", (3, 32, 32), 3), ("vgg16", (1, 64, 32), 4),
    ("mobilenetv1-0.25", (1, 40, 64), 10), ("dscnn", (2, 30, 13), 5), ("slim-lenet", (3, 49, 10), 2),
    ("slimmer-lenet", (1, 8, 8), 2), ("slim-mlp", (3, 5, 7), 2),
]  # fmt: skip


def n_outputs(info: models.ModelInfo) -> int:
    return info.n_classes or torch.Size(info.input_shape).numel()


@pytest.mark.parametrize("name", models.names())
def test_traces_symbolically_and_computes_the_same(name: str) -> None:
    info, model = models.info(name), models.build(name).eval()
    x = torch.rand(2, *info.input_shape)
    with torch.no_grad():
        expected = model(x)
        assert expected.shape == (2, n_outputs(info))
        assert torch.equal(fx.symbolic_trace(model)(x), expected)
    assert not any(isinstance(module, nn.modules.dropout._DropoutNd) for module in model.modules())


@pytest.mark.parametrize("name", QUICK)
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = models.build(name, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    again, other = models.build(name, seed=3).state_dict(), models.build(name, seed=4).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", QUICK)
def test_every_parameter_gets_a_gradient_and_building_leaves_training_mode(name: str) -> None:
    info, model = models.info(name), models.build(name)
    assert all(module.training for module in model.modules())
    assert all(int(m.num_batches_tracked) == 0 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    torch.manual_seed(0)
    x = torch.rand(4, *info.input_shape)
    outputs = model(x)
    loss = (
        F.mse_loss(outputs, x.flatten(1))
        if info.task == "reconstruct"
        else F.cross_entropy(outputs, torch.arange(4) % info.n_classes)
    )
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize(("name", "shape", "n_classes"), FIRST_SHAPE_PER_FAMILY)
def test_other_shapes_and_class_numbers(name: str, shape: tuple[int, int, int], n_classes: int) -> None:
    model = models.build(name, shape, n_classes)
    assert model(torch.rand(2, *shape)).shape == (2, n_classes)


def test_filters_have_two_outputs_and_no_filter_of_their_own() -> None:
    filters = {models.default_filter(name) for name in models.names()} - {""}
    assert filters == {name for name in models.names() if not models.default_filter(name)}
    assert {models.info(name).n_classes for name in filters} == {2}


def test_an_image_smaller_than_the_layers_is_refused_in_one_line() -> None:
    with pytest.raises(QtrainError, match=r"^model lenet cannot take input 1x8x8 \(.*\); natively 1x28x28$"):
        models.build("lenet", (1, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet21",), r"unknown model 'resnet21'; did you mean 'resnet2?0?"),
        (("lenet", (0, 28, 28)), r"input shape \(0, 28, 28\)"),
        (("lenet", (28, 28)), r"input shape \(28, 28\)"),
        (("lenet", None, 1), "at least 2"),
    ],
)
def test_bad_requests(arguments: tuple, message: str) -> None:
    with pytest.raises(QtrainError, match=message) as caught:
        models.build(*arguments)
    assert "\n" not in str(caught.value)


def test_a_reconstruction_has_no_classes() -> None:
    assert models.info("autoencoder", n_classes=10).n_classes == 0
    assert models.build("autoencoder", (1, 4, 5))(torch.rand(3, 1, 4, 5)).shape == (3, 20)


def test_listing_and_describing_do_not_import_torch() -> None:
    code = (
        "import sys; from qtrain import models; [models.info(n) for n in models.names()]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_digits_network_learns_the_digits() -> None:
    """Plain float SGD, 8 epochs: at least 0.97 on the held-out fifth."""
    digits = data.load("digits")
    x, x_test = (torch.from_numpy(images) / 255 for images in (digits.train_images, digits.test_images))
    y, y_test = torch.from_numpy(digits.train_labels), torch.from_numpy(digits.test_labels)
    model = models.build("digits-cnn")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        for batch in torch.randperm(len(y), generator=generator).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    assert (model(x_test).argmax(1) == y_test).float().mean() >= 0.97
