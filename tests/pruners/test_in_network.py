"""Pruners inside a network of plain, grouped and depthwise convolutions: recorded MACs and gradients."""

import pytest
import torch
from torch import nn

from qtrain import pruners
from qtrain.experiment import Experiment
from qtrain.formats.fixed import FixedTensor
from qtrain.layers import NumberPlan, mac, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.pruners.channel import ChannelPruning
from qtrain.training.setup import number_plan

SHAPE = (4, 6, 6)
BANNER8 = Experiment().with_options({"numbers.plan": "banner8"})  # errors lie in float32


class Net(nn.Module):
    """Plain, grouped and depthwise convolutions."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(4, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.fc = nn.Linear(12 * 36, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.depthwise(torch.relu(self.grouped(x))))
        return self.fc(x.flatten(1))


def step(pruner, bits=8):
    """One backward pass of 5 instances through the network above."""
    torch.manual_seed(0)
    net = quantize(Net(), SHAPE, NumberPlan.fixed(bits), pruner)
    logits, tape = net.run(torch.randn(5, *SHAPE))
    _, error, _ = cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1]))
    net.run_back(tape, net.logit_error(error, tape))
    return net


def recorded(net, phase):
    return {op.layer.name: op for op, _ in net.trace(net.schedule()) if op.phase == phase}


@pytest.mark.parametrize("bits", [8, 32])
def test_halving_the_keep_ratio_halves_the_macs(bits):
    """All channel counts here are even within each group, so that the recorded MACs are exactly half."""
    dense, half = step(pruners.NoPruning(), bits), step(ChannelPruning(keep=0.5), bits)
    for phase in ("error", "gradient"):
        whole, less = recorded(dense, phase), recorded(half, phase)
        for name in set(whole) & {"first", "grouped", "depthwise"}:
            assert 2 * less[name].macs == whole[name].macs > 0
        assert less["fc"].macs == whole["fc"].macs if "fc" in whole else True


def test_the_recorded_step_is_the_scheduled_one():
    """keep 0.3: first round(2.4) = 2; grouped 2 round(0.3 * 6) = 4; depthwise round(3.6) = 4."""
    net = step(ChannelPruning(keep=0.3))
    schedule = net.schedule()
    gradient = recorded(net, "gradient")
    assert {name: op.kept_channels for name, op in gradient.items()} == {
        "first": 2, "grouped": 4, "depthwise": 4, "fc": 3,
    }  # fmt: skip
    for layer in schedule.network.layers:
        if layer.name in gradient:
            assert schedule.kept(layer) == gradient[layer.name].kept_channels


@pytest.mark.parametrize("keep", [0.5, 1.0])
@pytest.mark.parametrize("kind", pruners.names())
def test_the_recorded_ops_are_the_scheduled_ones(kind, keep):
    """Selections and thinnings included: each is charged where it is made, both where both are."""
    net = step(pruners.build(Experiment().with_options({"prune.kind": kind, "prune.keep": keep})))
    schedule = net.schedule()
    scheduled = [(op.layer.name, op.phase, op.kept_channels) for op in schedule.backward(5)]
    recorded_ = [(op.layer.name, op.phase, op.kept_channels) for op, _ in net.trace(schedule)]
    assert sorted(scheduled) == sorted(row for row in recorded_ if row[1] not in ("forward", "update"))
    convs = {"first", "grouped", "depthwise"}
    for phase, made in (("select", kind.startswith("channel") and keep < 1), ("thin", kind.endswith("stochastic"))):
        assert {name for name, of, _ in scheduled if of == phase} == (convs if made else set())


@pytest.mark.parametrize(("gammas", "counted"), [((0, 1), (1, 0)), ((1, 0), (0, 1)), ((1, 1), (1, 1))])
def test_a_selection_is_charged_the_norms_that_count(gammas, counted):
    """Layer "first" makes 8 channels of 6 x 6 from 4 by 3 x 3 kernels: 5 x 8 x 36 errors, 8 x 4 x 9 weights."""
    net = step(ChannelPruning(0.5, *gammas))
    errors, weights = counted
    assert recorded(net, "select")["first"].macs == errors * 5 * 8 * 36 + weights * 8 * 4 * 9


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9])
def test_pruned_gradients_are_those_of_the_zeroed_error_map(keep):
    """In float64-exact small integers: skipping channels equals zeroing their error, in plain PyTorch's backward."""
    chosen = {}

    class Spy(ChannelPruning):
        def prune(self, error, weight, layer, tape):
            left = super().prune(error, weight, layer, tape)
            chosen[layer.name] = left.channels
            return left

    class Zeroing(pruners.NoPruning):
        def prune(self, error, weight, layer, tape):
            if chosen.get(layer.name) is None:
                return super().prune(error, weight, layer, tape)
            mask = torch.zeros(layer.out_channels).index_fill_(0, chosen[layer.name], 1.0)
            values = error.values * mask.view(1, -1, 1, 1)
            return super().prune(FixedTensor(values, error.exponent), weight, layer, tape)

    pruned = step(Spy(keep=keep), bits=32)
    zeroed = step(Zeroing(), bits=32)
    pairs = zip(pruned.model.named_parameters(), zeroed.model.parameters(), strict=True)
    for (name, ours), theirs in pairs:
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-6), name
        channels = chosen.get(name.partition(".")[0])
        if channels is not None:
            skipped = torch.ones(len(ours), dtype=torch.bool).index_fill_(0, channels, False)
            assert skipped.any()
            assert not ours.grad[skipped].any()


@pytest.mark.parametrize("bits", [4, 8])
def test_same_bits_whether_the_channels_are_gathered_or_their_weights_zeroed(bits, monkeypatch):
    """A depthwise layer is never gathered: it would need other groups."""
    found = []
    for gathers in (True, False):
        monkeypatch.setattr(mac, "gathers", lambda layer, *_, always=gathers: always and layer.name != "depthwise")
        net = step(ChannelPruning(keep=0.5), bits)
        found.append([p.grad for p in net.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert any(bool(gradient.any()) for gradient in found[0])


@pytest.mark.parametrize(
    ("plan", "averaged"),
    [(NumberPlan.float32(), True), (NumberPlan.fixed(8), False), (number_plan(BANNER8), False)],
)
def test_the_tape_says_whether_the_error_holds_the_mean(plan, averaged):
    """Twice the same instances: their errors at the logits halve where each holds 1/n, and stay where none does."""
    torch.manual_seed(0)
    net, x, labels = quantize(Net(), SHAPE, plan), torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, 0])
    errors = []
    for images, of in ((x, labels), (torch.cat([x, x]), torch.cat([labels, labels]))):
        logits, tape = net.run(images, training=False)
        errors.append(cross_entropy(logits, of)[1][:4])
        assert tape.averaged == averaged
    assert torch.allclose(errors[1], errors[0] / (2 if averaged else 1), rtol=1e-4)
