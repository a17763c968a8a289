"""Whole training steps, compiled and not: the same weights, momenta, statistics, exponents and stored tensors."""

from collections import deque

import pytest
import torch

from qtrain import engine
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.models import build, info
from qtrain.pruners.channel import ChannelPruning

pytestmark = pytest.mark.skipif(engine.compiler() is None, reason="no C++ compiler")
BATCH = 6


def train(
    model, name, layout=torch.contiguous_format, *, bits=8, gathered=False, narrowed=False, looked_at=False, keep=1.0,
    n_steps=3,
):  # fmt: skip
    """Every tensor stored in the last step, and all state after it."""
    about = info(model)
    net = quantize(build(model, seed=0), about.input_shape, NumberPlan.fixed(bits), ChannelPruning(keep), model)
    net.memory_format = layout
    optimizer = FixedSGD(net, 0.05, 0.9, 1e-4)
    generator = torch.Generator().manual_seed(1)
    stored = {}
    with engine.using(name):
        for net.step in range(n_steps):
            x = torch.randn(BATCH, *about.input_shape, generator=generator)
            labels = torch.randint(0, about.n_classes, (BATCH,), generator=generator)
            rows = torch.randperm(50, generator=generator)[:BATCH] if gathered else None
            for point in net.quantizers().values():
                point.monitor = deque() if looked_at else None
                point.watch = lambda key, tensor: stored.update({key: (tensor.values.clone(), tensor.exponent)})
            logits, tape = net.run(x, rows=rows)
            _, error, scale = cross_entropy(logits, labels)
            if narrowed:
                keep = torch.tensor([0, 2, 5])
                tape.narrow(keep)
                error = error[keep]
            net.run_back(tape, net.logit_error(error, tape))
            optimizer.step(Clock(0, net.step), scale)
        net.eval()
        logits, _ = net.run(x, training=False)
    stored["evaluated"] = (logits.values, logits.exponent)
    tensors = {**net.model.state_dict(), **{f"{k}.momentum": v for k, v in optimizer.tensors().items()}}
    return stored, tensors, (net.numbers_state(), optimizer.state())


def check_same(expected, got):
    for (stored, tensors, state), (stored_too, tensors_too, state_too) in [(expected, got)]:
        assert list(stored) == list(stored_too)
        for name, (values, exponent) in stored.items():
            assert stored_too[name][1] == exponent, name
            assert torch.equal(stored_too[name][0], values), name
        for name, values in tensors.items():
            assert torch.equal(tensors_too[name], values), name
        assert state == state_too


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("model", ["lenet5", "resnet8"])
@pytest.mark.parametrize("gathered", [False, True])
def test_same_bits_in_both_layouts_at_one_and_two_threads(model, gathered, threads):
    threads(1)
    expected = train(model, "torch", gathered=gathered)
    for n, layout in [(1, torch.contiguous_format), (1, torch.channels_last), (2, torch.channels_last)]:
        threads(n)
        check_same(expected, train(model, "compiled", layout, gathered=gathered))


def test_same_bits_when_some_instances_go_back(threads):
    threads(1)
    expected = train("resnet8", "torch", narrowed=True)
    for layout in (torch.contiguous_format, torch.channels_last):
        check_same(expected, train("resnet8", "compiled", layout, narrowed=True))


def test_same_bits_when_channels_are_pruned_and_when_the_numerics_are_looked_at(threads):
    threads(1)
    expected = train("resnet8", "torch", keep=0.5, n_steps=2)
    check_same(expected, train("resnet8", "compiled", torch.channels_last, keep=0.5, n_steps=2))
    check_same(expected, train("resnet8", "compiled", torch.channels_last, keep=0.5, n_steps=2, looked_at=True))


@pytest.mark.parametrize("bits", [4, 16])
def test_same_bits_at_other_widths(bits, threads):
    threads(1)
    expected = train("resnet8", "torch", bits=bits, n_steps=2)
    check_same(expected, train("resnet8", "compiled", torch.channels_last, bits=bits, n_steps=2))
