"""Normalizations beyond BatchNorm in float32, exchanged in a model, and with hardly any instance."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwmodel import network as shipped_networks
from hwmodel.normalization import NORMS
from hwmodel.schedule import Schedule
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.norms.modules import FrozenNorm, RangeNorm
from qtrain.layers.norms.swap import exchange
from qtrain.layers.optimizer import FixedSGD
from qtrain.models import build, info
from tests.layers.test_trace import counts, one_step


def test_range_norm_is_the_papers_formula() -> None:
    """x_hat = (x - mean) / (C(n) range(x - mean)), C(n) = 1 / sqrt(2 ln n), written out channel by channel."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 5, generator=g, requires_grad=True)
    norm = RangeNorm(2, eps=0.0)
    weights = torch.randn(x.shape, generator=g)
    (norm(x) * weights).sum().backward()
    ours, x.grad = x.grad, None
    planes = [x[:, c] - x[:, c].mean() for c in range(2)]
    by_hand = [p * math.sqrt(2 * math.log(3 * 4 * 5)) / (p.max() - p.min()) for p in planes]
    (torch.stack(by_hand, 1) * weights).sum().backward()
    assert torch.allclose(norm(x), torch.stack(by_hand, 1), atol=1e-6)
    assert torch.allclose(ours, x.grad, atol=1e-5)


def test_range_norms_running_statistics_take_over_at_inference() -> None:
    """Share 1: the running statistics are the last batch's."""
    norm, x = RangeNorm(3, momentum=1.0), torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    trained = norm(x)
    assert torch.allclose(norm.eval()(x), trained)


class GroupNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 6, 3), nn.GroupNorm(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_group_norm_in_a_users_model_is_torchs_bit_for_bit() -> None:
    torch.manual_seed(0)
    ours, theirs = GroupNet(), GroupNet()
    theirs.load_state_dict(ours.state_dict())
    images, labels = torch.randn(5, 1, 8, 8), torch.arange(5) % 4
    net = quantize(ours, (1, 8, 8), NumberPlan.float32())
    logits, tape = net.run(images)
    _, error, _ = cross_entropy(logits, labels)
    net.run_back(tape, net.logit_error(error, tape))
    F.cross_entropy(theirs(images), labels).backward()
    assert torch.equal(logits.values, theirs(images))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("norm", NORMS)
def test_an_estimate_of_an_exchanged_network_is_its_recorded_step(norm: str) -> None:
    name = "resnet8"
    model = build(name)
    exchange(model, info(name).input_shape, lambda _: norm)
    net = quantize(model, info(name).input_shape, NumberPlan.fixed(8), name=name)
    wanted = shipped_networks.load(name).normalized_by(lambda _: norm)
    assert net.network == wanted
    one_step(net, name, FixedSGD(net, 0.01, 0.9, 1e-4))
    schedule = Schedule(wanted, net.plan.widths, momentum=True, weight_decay=True)
    assert counts(net.trace(net.schedule(momentum=True, weight_decay=True))) == counts(schedule.step(2))


@pytest.mark.parametrize("name", ["mobilenetv1-0.25", "dscnn", "autoencoder", "resnet20"])
def test_the_shapes_of_every_family_are_exchanged_alike(name: str) -> None:
    for norm in NORMS:
        model = build(name)
        exchange(model, info(name).input_shape, lambda _, norm=norm: norm)
        net = quantize(model, info(name).input_shape, NumberPlan.float32(), name=name)
        assert net.network == shipped_networks.load(name).normalized_by(lambda _, norm=norm: norm)


class Odd(nn.Module):
    """A normalization behind a convolution, and one behind a pooling that can't take it in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.near = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.pool, self.far = nn.MaxPool2d(2), nn.BatchNorm2d(4)
        self.fc = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.far(self.pool(torch.relu(self.near(self.conv(x))))).flatten(1))


def odd() -> Odd:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Odd()
        for norm in (model.near, model.far):
            nn.init.normal_(norm.weight)
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
    return model


@pytest.mark.parametrize("norm", ["range", "frozen", "folded"])
def test_an_exchange_keeps_what_the_model_computes_at_inference(norm: str) -> None:
    model, images = odd().eval(), torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = model(images)
    exchange(model, (1, 8, 8), lambda _: norm)
    assert torch.allclose(model.eval()(images), wanted, atol=1e-5)


def test_folding_leaves_what_no_convolution_takes_in_frozen_and_a_glob_chooses() -> None:
    model = odd()
    exchange(model, (1, 8, 8), lambda name: "folded")
    assert isinstance(model.near, nn.Identity)
    assert isinstance(model.far, FrozenNorm)
    assert model.conv.bias is not None
    model = odd()
    exchange(model, (1, 8, 8), lambda name: "range" if name == "far" else "batch")
    assert isinstance(model.near, nn.BatchNorm2d)
    assert isinstance(model.far, RangeNorm)


def test_frozen_statistics_stay_and_the_error_passes_as_through_a_linear_map() -> None:
    """In float32 the gradient is that of the same network in evaluation mode."""
    ours, theirs = odd(), odd().eval()
    exchange(ours, (1, 8, 8), lambda _: "frozen")
    images, labels = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3
    net = quantize(ours, (1, 8, 8), NumberPlan.float32())
    logits, tape = net.run(images)
    _, error, _ = cross_entropy(logits, labels)
    net.run_back(tape, net.logit_error(error, tape))
    F.cross_entropy(theirs(images), labels).backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b)
