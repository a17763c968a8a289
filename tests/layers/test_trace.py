"""What a simulated step records is what the estimator says a step is made of."""

import pytest
import torch

from hwmodel import network as shipped_networks
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace
from qtrain.errors import QtrainError
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy, mean_squared_error
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.models import build, info, names
from qtrain.models.shapes import traced
from qtrain.pruners.channel import ChannelPruning

BATCH = 2


def one_step(net: QuantizedNetwork, name: str, optimizer: FixedSGD, batch: int = BATCH) -> None:
    images = torch.rand(batch, *info(name).input_shape)
    outputs, tape = net.run(images)
    if info(name).task == "classify":
        _, error, scale = cross_entropy(outputs, torch.arange(batch) % info(name).n_classes)
    else:
        _, error, scale = mean_squared_error(outputs, images)
    net.run_back(tape, net.logit_error(error, tape))
    optimizer.step(Clock(0, 0), scale)


def counts(trace: Trace) -> dict:
    return {op: tally.count for op, tally in trace}


@pytest.mark.parametrize("name", names())
def test_estimate_equals_recorded_step(name: str) -> None:
    net = quantize(build(name), info(name).input_shape, NumberPlan.fixed(8), name=name)
    one_step(net, name, FixedSGD(net, 0.01, 0.9, 1e-4))
    schedule = Schedule(shipped_networks.load(name), net.plan.widths, momentum=True, weight_decay=True)
    assert counts(net.trace(net.schedule(momentum=True, weight_decay=True))) == counts(schedule.step(BATCH))


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv1-0.25", "lenet5"])
def test_estimate_equals_recorded_step_pruned(name: str) -> None:
    pruner = ChannelPruning(keep=0.5)
    net = quantize(build(name), info(name).input_shape, NumberPlan.fixed(8), pruner, name)
    one_step(net, name, FixedSGD(net, 0.01))
    schedule = Schedule(shipped_networks.load(name), net.plan.widths, prune_keep=0.5)
    recorded = net.trace(net.schedule())
    assert counts(recorded) == counts(schedule.step(BATCH))
    dense = Schedule(shipped_networks.load(name), net.plan.widths).step(BATCH)
    assert recorded.macs_by_phase()["gradient"] < 0.65 * dense.macs_by_phase()["gradient"]


@pytest.mark.parametrize("name", ["resnet8", "lenet5", "dscnn"])
def test_estimate_equals_recorded_step_with_exponents_per_channel(name: str) -> None:
    plan = NumberPlan.fixed(8, weight_granularity="per-channel")
    net = quantize(build(name), info(name).input_shape, plan, name=name)
    one_step(net, name, FixedSGD(net, 0.01))
    assert net.plan.widths.weight_alignment > 0
    schedule = Schedule(shipped_networks.load(name), net.plan.widths)
    assert counts(net.trace(net.schedule())) == counts(schedule.step(BATCH))


@pytest.mark.parametrize("name", names())
def test_shipped_shapes_are_the_modules(name: str) -> None:
    """hwmodel/networks is generated: `python -m qtrain.models.shapes hwmodel/networks`."""
    assert shipped_networks.load(name) == traced(name)


def test_trained_subset_stops_the_error_pass() -> None:
    """With the classifier alone trained there is no convolution backward, and no update but its own."""
    net = quantize(build("lenet5"), (1, 28, 28), NumberPlan.fixed(8), name="lenet5")
    last = [layer.name for layer in net.network.layers if layer.kind == "linear"][-1]
    net.choose_trained(last)
    one_step(net, "lenet5", FixedSGD(net, 0.01))
    trace = net.trace(net.schedule())
    assert {op.layer.name for op, _ in trace if op.phase in ("gradient", "update")} == {last}
    assert {op.layer.name for op, _ in trace if op.phase == "error"} == {"loss"}
    schedule = Schedule(shipped_networks.load("lenet5"), net.plan.widths, frozen=net.frozen)
    assert counts(trace) == counts(schedule.step(BATCH))


def test_bias_only_has_no_weight_gradient() -> None:
    net = quantize(build("lenet5"), (1, 28, 28), NumberPlan.fixed(8), name="lenet5")
    before = {name: p.detach().clone() for name, p in net.model.named_parameters()}
    net.choose_trained("", "*")
    optimizer = FixedSGD(net, 0.1)
    settled = {name: p.detach().clone() for name, p in net.model.named_parameters()}
    one_step(net, "lenet5", optimizer)
    for name, p in net.model.named_parameters():
        assert torch.equal(p, settled[name]) == name.endswith("weight"), name
    macs = net.trace(net.schedule()).macs_by_phase()
    assert macs["gradient"] == 0
    assert macs["error"] > 0
    n_biases = sum(p.numel() for name, p in before.items() if name.endswith("bias"))
    assert macs["update"] == n_biases  # one multiply-accumulate a bias, without momentum and decay


def test_unsupported_layer_is_named() -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.PReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).flatten(1)

    with pytest.raises(QtrainError, match=r"body\.1 \(PReLU\) is a trainable layer"):
        quantize(Odd(), (1, 8, 8), NumberPlan.fixed(8), name="odd")
