"""A small filter and a stream to drive it with."""

from types import SimpleNamespace

import pytest
import torch

from qtrain import filters, models
from qtrain.experiment import Experiment
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.optimizer import FixedSGD

SHAPE = (1, 8, 8)
M = 16


def make(kind: str, bits: int = 8, seed: int = 3, **settings):
    """The filter `kind` with a small filter network; settings are keys of [filter]."""
    options = {f"filter.{key}": value for key, value in settings.items()}
    experiment = Experiment().with_options({"filter.kind": kind, "seed": seed, **options})

    def network():
        net = quantize(models.build("slimmer-lenet", SHAPE, 2, seed), SHAPE, NumberPlan.fixed(bits, seed=seed))
        filters.start_undecided(net)
        return net, FixedSGD(net, experiment.filter.lr, experiment.filter.momentum, payer="filter")

    return filters.build(experiment, network)


def stream(step: int, m: int = M):
    """(images, labels) of a step, the same each time it is asked for."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(m, *SHAPE, generator=generator), torch.randint(10, (m,), generator=generator)


def loss_of(images):
    """A loss a network can learn to predict: the squared mean of the image, scaled to about 1."""
    return images.flatten(1).mean(1).square() * 64


def run(filter_, steps, m: int = M):
    """Drive a filter as the trainer does; returns each step's (kept, uncertain, backward rows, metrics)."""
    log = []
    for step in steps:
        images, labels = stream(step, m)
        choice = filter_.choose(images, labels, step)
        kept_losses = loss_of(images[choice.kept])
        rows = filter_.backward_rows(kept_losses) if len(kept_losses) else None
        metrics = filter_.learn(choice, kept_losses, loss_of(images[choice.uncertain]), step)
        log.append((choice.kept.tolist(), choice.uncertain.tolist(), None if rows is None else rows.tolist(), metrics))
    return log


@pytest.fixture(scope="session")
def lab():
    return SimpleNamespace(make=make, stream=stream, loss_of=loss_of, run=run, M=M, SHAPE=SHAPE)
