"""Faults measured in other libraries, each of which must not happen here. (Levels, halves, sign: test_fixed.py.)"""

import copy

import pytest
import torch
from torch import nn

from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock


def network(plan: NumberPlan) -> tuple[QuantizedNetwork, FixedSGD]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(64, 3),
        )  # fmt: skip
    net = quantize(model, (1, 8, 8), plan)
    return net, FixedSGD(net, 0.1, 0.9)


def gradients(net: QuantizedNetwork, step: int) -> dict[str, torch.Tensor]:
    """Gradients of one fixed batch; they stay in `.grad`."""
    g = torch.Generator().manual_seed(step)
    net.step = step
    logits, tape = net.run(torch.randn(6, 1, 8, 8, generator=g))
    _, error, _ = cross_entropy(logits, torch.arange(6) % 3)
    net.run_back(tape, net.logit_error(error, tape))
    return {name: p.grad for name, p in net.model.named_parameters() if p.grad is not None}


def test_grid_values_survive_stochastic_rounding_at_sixteen_bits() -> None:
    """QPyTorch moves 0.2 % of them."""
    codes = torch.arange(-(2**15) + 1, 2**15, dtype=torch.float32)
    for step in range(50):
        assert torch.equal(FixedPoint(16).quantize(codes * 2.0**-9, -9, "stochastic", Stream(0, step, 1)), codes / 512)


def test_every_point_of_a_network_has_noise_of_its_own() -> None:
    """Brevitas gives every layer a generator of the same seed."""
    net, _ = network(NumberPlan.fixed(8))
    ids = [point.stream_id for point in net.quantizers().values()]
    assert len(ids) == len(set(ids)) > 15


@pytest.mark.parametrize("bits", [2, 3, 5])
def test_a_gradient_width_of_its_own_is_obeyed_by_convolutions(bits: int) -> None:
    """microxcaling ignores it there. 2^b - 1 codes at most, and more than that at 8 bits."""
    plan = NumberPlan.fixed(8, layers={"*": {"gradient_bits": bits}})
    narrow, wide = gradients(network(plan)[0], 0), gradients(network(NumberPlan.fixed(8))[0], 0)
    for name in ("0.weight", "3.weight", "6.weight"):
        assert len(narrow[name].unique()) <= 2**bits - 1
        assert len(wide[name].unique()) > len(narrow[name].unique())


@pytest.mark.parametrize("stop", [1, 2])
def test_going_on_from_a_saved_state_draws_the_same_noise(stop: int) -> None:
    plan = NumberPlan.fixed(8, seed=5)
    straight, optimizer = network(plan)
    for step in range(3):
        gradients(straight, step)
        optimizer.step(Clock(5, step), 1 / 6)
    first, optimizer = network(plan)
    for step in range(stop):
        gradients(first, step)
        optimizer.step(Clock(5, step), 1 / 6)
    saved = copy.deepcopy(
        (first.model.state_dict(), first.numbers_state(), optimizer.state(), optimizer.tensors())
    )  # fmt: skip
    second, optimizer = network(plan)
    second.model.load_state_dict(saved[0])
    second.load_numbers_state(saved[1])
    optimizer.load(saved[2], saved[3])
    torch.manual_seed(99)  # a restarted process has another generator
    for step in range(stop, 3):
        gradients(second, step)
        optimizer.step(Clock(5, step), 1 / 6)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_threads_and_memory_format_change_no_bit(threads: int, layout: torch.memory_format) -> None:
    reference, optimizer = network(NumberPlan.fixed(8))
    for step in range(2):
        gradients(reference, step)
        optimizer.step(Clock(0, step), 1 / 6)
    other, optimizer = network(NumberPlan.fixed(8))
    other.memory_format = layout
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for step in range(2):
            gradients(other, step)
            optimizer.step(Clock(0, step), 1 / 6)
    finally:
        torch.set_num_threads(before)
    for name, value in reference.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
