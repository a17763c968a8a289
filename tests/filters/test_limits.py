"""Filters at the edges of their counts: the step at which a limit is reached, ties, empty and single instances."""

import pytest
import torch
from torch import nn

from qtrain import filters, models
from qtrain.errors import QtrainError
from qtrain.filters.dead import DeadWatch
from qtrain.filters.instance import HIGH, LOW
from qtrain.filters.selective_backprop import SelectiveBackprop
from qtrain.filters.threshold import LEAST, Counts, LossThreshold
from qtrain.formats.fixed import FixedTensor
from qtrain.layers import NumberPlan, quantize


def steps_until_dead(watch: DeadWatch, streamed: int) -> int:
    """How many mini-batches of which nothing is kept it takes."""
    return next(n for n in range(1, 2000) if watch.update(streamed, 0))


@pytest.mark.parametrize(("streamed", "steps"), [(20, 50), (19, 53), (1000, 50), (1, 1000)])
def test_a_filter_is_dead_at_the_step_that_reaches_both_limits(streamed, steps):
    """50 steps and 1000 instances: 50 x 20 = 1000; 52 x 19 = 988 < 1000 <= 53 x 19; 1000 in each of 50; 1000 x 1."""
    watch = DeadWatch()
    assert steps_until_dead(watch, streamed) == steps
    assert not watch.update(streamed + 1, 1)
    assert steps_until_dead(watch, streamed) == steps  # what was counted before a kept instance does not count


def test_the_threshold_sinks_to_the_step_of_fixed_point_losses_and_no_further():
    """Halved from 1 while nothing is kept: 2^-16 after 16 mini-batches, and after 20."""
    threshold = LossThreshold(0.5, 1.5, 0.5, 10, 1.0, True, "true-high")
    values = []
    for _ in range(20):
        threshold.update(Counts(8, 0, 0, 0.0))
        values.append(threshold.value)
    assert values == [2.0 ** -min(n, 16) for n in range(1, 21)]
    assert LEAST == 2.0**-16


def test_shares_of_one_instance_and_of_none():
    threshold = LossThreshold(0.5, 1.5, 0.5, 10, 1.0, True, "true-high")
    assert threshold.share("kept") == 0.0
    threshold.update(Counts(1, 1, 1, 0.0))
    assert (threshold.share("kept"), threshold.share("true_high")) == (1.0, 1.0)


def test_an_untrained_filter_network_is_nearly_undecided():
    """Its last layer a 64th of what it was; the bias says "high" with 1 / (1 + e^-0.1) = 52.5 %."""
    made = models.build("slimmer-lenet", (1, 8, 8), 2, 3)
    before = quantize(made, (1, 8, 8), NumberPlan.fixed(8)).units[-2].module.weight.detach().clone()
    net = quantize(models.build("slimmer-lenet", (1, 8, 8), 2, 3), (1, 8, 8), NumberPlan.fixed(8))
    filters.start_undecided(net)
    last = net.units[-2].module
    assert torch.equal(last.weight, before / 64)
    bias = last.bias.detach()
    assert float(torch.softmax(bias, 0)[HIGH]) == pytest.approx(0.525, abs=5e-4)
    assert bias[LOW] == 0


HEADS = {
    "pooled": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    "normalized": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
    "two pixels": lambda: nn.Sequential(nn.Conv2d(1, 1, 3, stride=3), nn.AvgPool2d((1, 2)), nn.Flatten()),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_filter_network_may_end_in_layers_without_weights(head):
    """The last weights, not the last layer's, are a 64th of what they were: outputs differ by less than the bias, 0.1,
    where it is there (of one channel it is not), and everything is kept. The gradients are PyTorch's."""
    torch.manual_seed(0)
    model = HEADS[head]()
    last = [m for m in model if isinstance(getattr(m, "weight", None), nn.Parameter)][-1]
    before = last.weight.detach().clone()
    net = quantize(model, (1, 8, 8), NumberPlan.float32())
    filters.start_undecided(net)
    assert torch.equal(last.weight, before / 64)
    images = torch.randn(16, 1, 8, 8)
    logits, tape = net.run(images)
    assert (logits.values[:, HIGH] - logits.values[:, LOW] > (-0.1 if head == "two pixels" else 0)).all()
    net.run_back(tape, FixedTensor(torch.tensor([[-1.0, 1.0]]).repeat(16, 1)))  # of the sum of the differences
    gradients = [p.grad.clone() for p in model.parameters()]
    outputs = model(images)
    wanted = torch.autograd.grad((outputs[:, HIGH] - outputs[:, LOW]).sum(), list(model.parameters()))
    assert all(torch.allclose(own, theirs, atol=1e-6) for own, theirs in zip(gradients, wanted, strict=True))


def test_a_filter_network_needs_two_outputs_and_weights():
    three = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(QtrainError, match=r"^filter network mine has 3 outputs; give one with two, .*$"):
        filters.start_undecided(quantize(three, (1, 8, 8), NumberPlan.float32(), name="mine"))
    with pytest.raises(QtrainError, match=r"^model mine has no layer with weights to learn with; give another$"):
        quantize(nn.Sequential(nn.AvgPool2d((8, 4)), nn.Flatten()), (1, 8, 8), NumberPlan.float32(), name="mine")


@pytest.mark.parametrize("m", [1, 2, 7])
def test_the_shares_reported_are_those_of_the_mini_batch(lab, m):
    filter_ = lab.make("instance", steer="true-high", audit=0.5)
    for kept, uncertain, _, metrics in lab.run(filter_, range(6), m):
        assert metrics["kept_share"] == len(kept) / m
        assert metrics["uncertain_share"] == len(uncertain) / m


def test_an_empty_mini_batch_counts_nothing(lab):
    filter_ = lab.make("instance", steer="true-high")
    images, labels = lab.stream(0, 0)
    choice = filter_.choose(images, labels, 0)
    metrics = filter_.learn(choice, torch.zeros(0), torch.zeros(0), 0)
    assert (metrics["kept_share"], metrics["uncertain_share"]) == (0.0, 0.0)
    assert filter_.state()["threshold"]["history"] == [[0, 0, 0, 0]]


def test_selective_backprop_remembers_the_last_1024_losses():
    """The window of the published code; a loss that has left it raises no percentile any more."""
    filter_ = SelectiveBackprop(0)
    filter_.backward_rows(torch.arange(1025.0))
    assert filter_.state()["history"] == [float(n) for n in range(1, 1025)]


def test_equal_losses_all_go_back():
    """None is above another, so that each one's percentile is 1, and 1^beta = 1."""
    filter_ = SelectiveBackprop(0, keep=0.25)
    assert filter_.backward_rows(torch.full((16,), 0.5)).tolist() == list(range(16))
