"""Batch normalization when hardly any instance, one or none is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwmodel.operations import NORM_KINDS
from qtrain.experiment import Experiment
from qtrain.filters.base import Choice
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.recipes import Batch
from qtrain.training.setup import Job, build
from qtrain.training.step import train_step
from tests.reference.test_norms import normalized


class Norms(nn.Module):
    """A normalization over 36 pixels, and one over a single pixel."""

    input_shape, n_classes = (1, 8, 8), 10

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.whole, self.single = nn.Conv2d(4, 6, 6), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        return self.fc(torch.relu(self.single(self.whole(x))).flatten(1))


def network() -> nn.Module:
    return Norms()


def job_that_keeps(n_kept: int, bits: int, folder: Path) -> Job:
    """A run whose instance filter looks at all of the batch, and whose choice is then the first `n_kept` of it; the
    next two are uncertain."""
    options = {
        "model": f"{__name__}:network", "filter.kind": "instance", "filter.network": "slim-mlp",
        "train.batch_size": 8, "train.steps": 2, "numbers.bits": bits, "run.out": str(folder),
    }  # fmt: skip
    job = build(Experiment().with_options(options))
    choose = job.filter.choose

    def few(images: Tensor, labels: Tensor, step: int) -> Choice:
        seen = choose(images, labels, step)
        return dataclasses.replace(seen, kept=torch.arange(n_kept), uncertain=torch.arange(n_kept, n_kept + 2))

    job.filter.choose = few
    return job


def copies(job: Job) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in job.net.model.state_dict().items()}


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("n_kept", [2, 1, 0])
def test_a_step_with_few_kept_instances(n_kept: int, bits: int, tmp_path: Path) -> None:
    """36 elements a channel make statistics of even one instance, a single pixel needs two instances; nothing kept is
    no step at all, though the filter still learns."""
    job = job_that_keeps(n_kept, bits, tmp_path)
    batch = Batch(job.images[:8], job.labels[:8], torch.arange(8), 0)
    before, filter_before = copies(job), [p.clone() for p in job.filter.network.model.parameters()]
    record = train_step(job, batch, 0.05)
    after = copies(job)
    assert (record.kept, record.uncertain) == (n_kept, 2)
    assert all(value.isfinite().all() for value in after.values())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert ("norm.running_mean" in moved, "norm.running_var" in moved) == (n_kept > 0,) * 2
    assert ("single.running_mean" in moved, "single.running_var" in moved) == (n_kept > 1,) * 2
    assert ("conv.weight" in moved) == (n_kept > 0)
    assert any(not torch.equal(a, b) for a, b in zip(filter_before, job.filter.network.model.parameters(), strict=True))
    if n_kept == 0:
        assert not moved
        assert not job.optimizer.velocity
        assert {key[2] for key in job.net.counts} == {"uncertain"}  # no main pass is recorded


def test_statistics_of_two_instances_by_hand(tmp_path: Path) -> None:
    """mean <- 0.9 mean + 0.1 (a + b) / 2; variance <- 0.9 variance + 0.1 ((a - b) / 2)^2, biased, of stored codes."""
    job = job_that_keeps(2, 8, tmp_path)
    seen: list[Tensor] = []

    def watch(layer: str, which: str, tensor: str, stored: Any) -> None:
        if (layer, which) == ("whole", "forward") and len(stored.values) == 2:
            seen.append(stored.values.clone().double().flatten(1))

    job.net.watch = watch
    train_step(job, Batch(job.images[:8], job.labels[:8], torch.arange(8), 0), 0.05)
    a, b = seen[-1]
    norm = job.net.model.single
    assert torch.allclose(norm.running_mean.double(), 0.1 * (a + b) / 2, atol=1e-4 * float(a.abs().max()))
    wanted = 0.9 + 0.1 * ((a - b) / 2).square()
    assert torch.allclose(norm.running_var.double(), wanted, rtol=1e-3)


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("kind", NORM_KINDS)
def test_an_empty_batch_goes_through_and_teaches_nothing(kind: str, bits: int) -> None:
    model = normalized(kind)
    net = quantize(model, (2, 8, 8), NumberPlan.fixed(bits))
    held = {name: value.clone() for name, value in model.named_buffers()}
    logits, tape = net.run(torch.zeros(0, 2, 8, 8))
    _, error, _ = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    net.run_back(tape, net.logit_error(error, tape))
    assert logits.values.shape == (0, 4)
    for name, p in model.named_parameters():
        assert p.grad is None or not p.grad.any(), name  # neither a gradient nor NaN
    for name, value in model.named_buffers():
        assert torch.equal(value, held[name]), name
