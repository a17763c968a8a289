"""A share of a layer's output channels learns: the masked full gradient, bit for bit, at a share of its cost."""

import pytest
import torch

from hwmodel import devices, memory
from hwmodel import network as shipped_networks
from hwmodel.errors import HwmodelError
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace
from qtrain.errors import QtrainError
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.mac import MacUnit
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.models import build, info
from qtrain.pruners.channel import ChannelPruning

NETWORKS = ("resnet8", "mobilenetv1-0.25", "lenet5")
BATCH = 2


def network(name: str, train: str, plan: NumberPlan) -> QuantizedNetwork:
    torch.manual_seed(0)
    net = quantize(build(name), info(name).input_shape, plan, name=name)
    net.choose_trained(train)
    return net


def run_back(net: QuantizedNetwork, name: str) -> float:
    images = torch.rand(BATCH, *info(name).input_shape, generator=torch.Generator().manual_seed(1))
    outputs, tape = net.run(images)
    _, error, scale = cross_entropy(outputs, torch.arange(BATCH) % info(name).n_classes)
    net.run_back(tape, net.logit_error(error, tape))
    return scale


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_and_update_are_the_masked_full_ones(name: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = NumberPlan.fixed(bits) if bits < 32 else NumberPlan.float32()
    sparse, full = network(name, "all:0.5", plan), network(name, "all", plan)
    chosen = sparse.trained_channels
    optimizers = [FixedSGD(net, 0.01, 0.9) for net in (sparse, full)]
    before = {key: p.detach().clone() for key, p in sparse.model.named_parameters()}
    scale = run_back(sparse, name)
    store = MacUnit._store

    def masked(
        unit: MacUnit, d_weight: torch.Tensor, d_bias: torch.Tensor | None, channels: None, tape: object
    ) -> None:
        for gradient in (d_weight, d_bias):
            if gradient is not None:
                gradient[chosen[unit.name] :] = 0
        store(unit, d_weight, d_bias, channels, tape)

    monkeypatch.setattr(MacUnit, "_store", masked)
    run_back(full, name)
    assert chosen

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return torch.equal(a, b) if bits < 32 else torch.allclose(a, b, rtol=1e-4, atol=1e-6)  # floats sum otherwise

    pairs = dict(full.model.named_parameters())
    for key, p in sparse.model.named_parameters():
        assert same(p.grad, pairs[key].grad), key
    for optimizer in optimizers:
        optimizer.step(Clock(0, 0), scale)
    for key, p in sparse.model.named_parameters():
        n = chosen.get(key.rpartition(".")[0], len(p))
        assert same(p[:n], pairs[key][:n]), key
        assert torch.equal(p[n:], before[key][n:])
    assert any(not torch.equal(p, before[key]) for key, p in sparse.model.named_parameters())


def test_weight_decay_leaves_the_other_channels_alone() -> None:
    for plan in (NumberPlan.fixed(8), NumberPlan.float32()):
        net = network("lenet5", "all:0.5", plan)
        optimizer = FixedSGD(net, 0.5, 0.9, 0.1)
        settled = {key: p.detach().clone() for key, p in net.model.named_parameters()}
        optimizer.step(Clock(0, 0), run_back(net, "lenet5"))
        for key, p in net.model.named_parameters():
            n = net.trained_channels[key.rpartition(".")[0]]
            assert torch.equal(p[n:], settled[key][n:])


@pytest.mark.parametrize("name", NETWORKS)
def test_estimate_equals_recorded_step(name: str) -> None:
    net = network(name, "all:0.25", NumberPlan.fixed(8))
    FixedSGD(net, 0.01).step(Clock(0, 0), run_back(net, name))
    chosen = shipped_networks.load(name).choose_trained("all:0.25")
    assert chosen.channels == net.trained_channels
    schedule = Schedule(shipped_networks.load(name), net.plan.widths, trained_channels=chosen.channels)
    recorded = {op: tally.count for op, tally in net.trace(net.schedule())}
    assert recorded == {op: tally.count for op, tally in schedule.step(BATCH)}
    assert Schedule.from_json(schedule.to_json()) == schedule
    assert Trace.from_json(schedule.step(BATCH).to_json()) == schedule.step(BATCH)


def test_a_quarter_of_the_channels_costs_a_quarter_of_the_gradient_and_less_memory() -> None:
    """resnet8's channels are multiples of 16; of its 10 classes round(2.5) = 2 learn."""
    net = shipped_networks.load("resnet8")
    whole, part = (
        Schedule(net, NumberPlan.fixed(8).widths, trained_channels=net.choose_trained(globs).channels)
        for globs in ("all", "all:0.25")
    )
    full, some = (schedule.step(1).macs_by_phase() for schedule in (whole, part))
    classifier = 640
    assert some["gradient"] == (full["gradient"] - classifier) // 4 + classifier // 5
    assert some["error"] == full["error"]
    assert some["forward"] == full["forward"]
    device = devices.load("stm32l4r5")
    peaks = [memory.peak(schedule, 1, device=device) for schedule in (whole, part)]
    assert peaks[1].peak_ram_bytes < peaks[0].peak_ram_bytes
    assert peaks[1].flash_bytes > peaks[0].flash_bytes  # where the other channels' weights lie


def test_a_share_that_cannot_be_had_is_refused() -> None:
    net = shipped_networks.load("resnet8")
    for globs in ("all:0", "all:1.5", "fc:half"):
        with pytest.raises(HwmodelError, match="share behind the colon"):
            net.choose_trained(globs)
    assert net.choose_trained("fc:0.5", "fc").channels == {}
    pruned = quantize(build("lenet5"), info("lenet5").input_shape, NumberPlan.fixed(8), ChannelPruning(keep=0.5))
    with pytest.raises(QtrainError, match="exclude each other"):
        pruned.choose_trained("all:0.5")
