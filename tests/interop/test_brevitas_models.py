"""Networks written with Brevitas' layers train as they are: their forward, our errors and gradients."""

import copy
import json
import math
from collections.abc import Callable

import brevitas.nn as qnn
import pytest
import torch
from torch import Tensor, nn

from hwmodel.devices import load
from hwmodel.pricing import price
from qtrain.errors import QtrainError
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.pruners.channel import ChannelPruning
from tests.interop.brevitas_networks import CNV, TFC, LeNet

NETWORKS = [(LeNet, (3, 32, 32)), (CNV, (3, 32, 32)), (TFC, (1, 28, 28))]
CLASSES = 10


def _made(factory: Callable[[], nn.Module], shape: tuple[int, ...], n: int = 8) -> tuple[nn.Module, Tensor, Tensor]:
    """The network and made images, each class a pattern of its own with noise on it; mean 0, deviation 1."""
    torch.manual_seed(0)
    labels = torch.arange(n) % CLASSES
    patterns = torch.rand(CLASSES, *shape)
    x = patterns[labels] + 0.1 * torch.rand(n, *shape)
    return factory(), (x - x.mean()) / x.std(), labels


def _back(net: QuantizedNetwork, x: Tensor, labels: Tensor) -> float:
    logits, tape = net.run(x)
    losses, error, scale = cross_entropy(logits, labels)
    net.run_back(tape, net.logit_error(error, tape))
    assert scale == 1.0  # the logits are not codes: PyTorch's loss, its mean inside the error
    return float(losses.mean())


@pytest.mark.parametrize(("factory", "shape"), NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_their_quantizers_rule_the_forward(factory: type, shape: tuple[int, ...], training: bool) -> None:
    model, x, _ = _made(factory, shape)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    own = copy.deepcopy(model).train(training)
    net = quantize(model, shape, NumberPlan.fixed(8))
    for _ in range(2):
        expected = own(x)
        logits, _ = net.run(x, training=training)
        assert torch.equal(logits.values, expected)


@pytest.mark.parametrize(("factory", "shape", "tolerance"), [(LeNet, (3, 32, 32), 3e-3), (CNV, (3, 32, 32), 1e-6)])
def test_with_float_errors_the_gradients_are_those_of_pytorch(
    factory: type, shape: tuple[int, ...], tolerance: float
) -> None:
    """Up to what LeNet's 32-bit biases send back through the scale of the tensor they are added to: we cut it."""
    model, x, labels = _made(factory, shape)
    own = copy.deepcopy(model)
    nn.functional.cross_entropy(own(x), labels).backward()
    _back(quantize(model, shape, NumberPlan.float32()), x, labels)
    expected = dict(own.named_parameters())
    compared = 0
    for name, parameter in model.named_parameters():
        if not name.endswith(("weight", "bias")) or expected[name].grad is None:
            continue
        assert parameter.grad is not None, name
        difference = (parameter.grad - expected[name].grad).norm()
        assert difference <= tolerance * expected[name].grad.norm(), name
        compared += 1
    assert compared == sum(n.endswith(("weight", "bias")) for n in expected)


@pytest.mark.parametrize(
    ("factory", "shape", "lr", "steps"),
    [(LeNet, (3, 32, 32), 0.05, 28), (CNV, (3, 32, 32), 0.02, 8), (TFC, (1, 28, 28), 0.05, 40)],
)
def test_they_train_with_8_bit_errors(factory: type, shape: tuple[int, ...], lr: float, steps: int) -> None:
    model, x, labels = _made(factory, shape, 20)
    net = quantize(model, shape, NumberPlan.fixed(8))
    sgd = FixedSGD(net, lr, 0.9)
    losses = []
    for net.step in range(steps):
        losses.append(_back(net, x, labels))
        sgd.step(Clock(0, net.step))
    assert min(losses[-3:]) < 0.6 * losses[0], losses


@pytest.mark.parametrize(("factory", "shape"), NETWORKS)
@pytest.mark.parametrize("bits", [8, 4])
def test_every_error_and_gradient_is_a_code(factory: type, shape: tuple[int, ...], bits: int) -> None:
    model, x, labels = _made(factory, shape)
    net = quantize(model, shape, NumberPlan.fixed(bits))
    limit = 2 ** (bits - 1) - 1
    errors = []
    for unit in net.units[1:-1]:

        def spy(*args, back=unit.backward):
            found = back(*args)
            errors.extend(e for e in found if e is not None)
            return found

        unit.backward = spy
    _back(net, x, labels)
    assert len(errors) >= 6
    for error in errors:
        codes = error.values * 2.0**-error.exponent
        assert torch.equal(codes, codes.round())
        assert codes.abs().max() <= limit
    for parameter in model.parameters():
        if parameter.grad is not None and parameter.grad.abs().max() > 0:
            exponent = min(math.frexp(v)[1] for v in parameter.grad[parameter.grad != 0].abs().tolist()) - bits
            codes = parameter.grad.double() * 2.0**-exponent
            assert torch.equal(codes, codes.round())
            assert parameter.grad.unique().numel() <= 2 * limit + 1


def test_products_are_priced_at_the_bits_of_their_quantizers() -> None:
    """CNV: 32x32 shrinks by 2 at each 3x3 convolution and by half at each pool: 30, 28 | 14: 12, 10 | 5: 3, 1."""
    model, x, labels = _made(CNV, (3, 32, 32), 2)
    net = quantize(model, (3, 32, 32), NumberPlan.fixed(8))
    _back(net, x, labels)
    trace = net.trace(net.schedule(), 1, 2)
    convs = [(30, 64, 3), (28, 64, 64), (12, 128, 64), (10, 128, 128), (3, 256, 128), (1, 256, 256)]
    expected = sum(size**2 * n_out * n_in * 9 for size, n_out, n_in in convs) + 256 * 512 + 512 * 512 + 512 * 10
    forward = [op for op, _ in trace if op.phase == "forward"]
    assert sum(op.macs for op in forward) == 2 * expected
    products = [op for op in forward if op.macs]
    assert [op.widths.weight_bits for op in products] == [4] * 9
    assert [op.widths.activation_bits for op in products] == [8] + [4] * 8  # the image has 8 bits
    assert {op.widths.error_bits for op, _ in trace} == {8}
    assert price(trace, load("stm32l4r5")).energy_j > 0


def test_pruned_channels_get_no_gradient_and_the_trace_says_so() -> None:
    model, x, labels = _made(CNV, (3, 32, 32))
    net = quantize(model, (3, 32, 32), NumberPlan.fixed(8), ChannelPruning(0.25))
    _back(net, x, labels)
    gradient = model.features[4].weight.grad
    assert 0 < int((gradient.abs().flatten(1).sum(1) > 0).sum()) <= 16
    ops = [op for op, _ in net.trace(net.schedule()) if op.layer.name == "features.4"]
    assert {op.phase: op.kept_channels for op in ops} == {"forward": 64, "select": 64, "error": 16, "gradient": 16}


def test_dropout_repeats_with_the_step_and_changes_with_it() -> None:
    model, x, _ = _made(TFC, (1, 28, 28))
    net = quantize(model, (1, 28, 28), NumberPlan.fixed(8))
    first = net.run(x)[0].values
    torch.rand(3)  # the user's own draws do not matter
    assert torch.equal(net.run(x)[0].values, first)
    net.step = 1
    assert not torch.equal(net.run(x)[0].values, first)


def test_learned_scales_receive_quantized_gradients() -> None:
    """Brevitas learns an activation's scale once it has collected its statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantConv2d(1, 4, 3, weight_bit_width=4), qnn.QuantReLU(bit_width=4, collect_stats_steps=1), nn.Flatten(),
        qnn.QuantLinear(4 * 36, CLASSES, bias=True, weight_bit_width=4),
    )  # fmt: skip
    net = quantize(model, (1, 8, 8), NumberPlan.fixed(8))
    sgd = FixedSGD(net, 0.1)
    x, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    scale = next(p for name, p in model.named_parameters() if "scaling_impl" in name)
    for net.step in range(2):
        _back(net, x, labels)
        before = scale.item()
        sgd.step(Clock(0, net.step))
    assert scale.item() != before


@pytest.mark.parametrize("collect_stats_steps", [1, 300])
def test_a_restored_run_goes_on_to_the_same_weights(collect_stats_steps: int) -> None:
    """Interrupted before and after Brevitas' scales are collected; dropout and stochastic rounding in between."""

    def made() -> tuple[QuantizedNetwork, FixedSGD]:
        torch.manual_seed(0)
        act = qnn.QuantReLU(bit_width=4, collect_stats_steps=collect_stats_steps)
        model = nn.Sequential(
            qnn.QuantConv2d(1, 4, 3, weight_bit_width=4), nn.BatchNorm2d(4), act, nn.Dropout(0.2), nn.Flatten(),
            qnn.QuantLinear(4 * 36, CLASSES, bias=True, weight_bit_width=4),
        )  # fmt: skip
        net = quantize(model, (1, 8, 8), NumberPlan.fixed(8))
        return net, FixedSGD(net, 0.1, 0.9, 1e-3)

    def train(net: QuantizedNetwork, sgd: FixedSGD, steps: range) -> None:
        for net.step in steps:
            x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(net.step))
            _back(net, x, torch.arange(8))
            sgd.step(Clock(0, net.step))

    net, sgd = made()
    train(net, sgd, range(3))
    weights = {k: v.clone() for k, v in net.model.state_dict().items()}
    numbers, state = net.numbers_state(), sgd.state()
    momentum = {k: v.clone() for k, v in sgd.tensors().items()}
    train(net, sgd, range(3, 6))
    other, other_sgd = made()
    other.model.load_state_dict(weights)
    other_sgd.load(state, momentum)
    other.load_numbers_state(json.loads(json.dumps(numbers)))
    train(other, other_sgd, range(3, 6))
    for key, value in net.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[key], value), key


class _Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


def test_an_unknown_trainable_layer_is_named() -> None:
    model = nn.Sequential(qnn.QuantConv2d(1, 4, 3), nn.Flatten(), qnn.QuantLinear(144, 4, bias=True), _Sparse())
    with pytest.raises(QtrainError, match=r"3 \(_Sparse\) is a trainable layer"):
        quantize(model, (1, 8, 8), NumberPlan.fixed(8))
