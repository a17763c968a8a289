"""Small jobs of every recipe: the digits that scikit-learn ships."""

import pytest
import torch

from qtrain.experiment import Experiment
from qtrain.recipes import Batch
from qtrain.training.setup import build
from qtrain.training.step import train_step

SMALL = {
    "train.batch_size": 8,
    "train.steps": 4,
    "sinkhorn.labelled": 4,
    "contrast.buffer": 8,
    "contrast.probe": 100,
    "adversarial.bank": 40,
    "adversarial.attack_steps": 2,
    "adversarial.tested": 10,
}


@pytest.fixture
def job():
    """Makes the job of an experiment with these options on top of the small ones; instance filter and pruning off."""

    def make(recipe, **options):
        plain = {"recipe": recipe, "filter.kind": "none", "prune.kind": "none"}
        return build(Experiment().with_options(plain | SMALL | {k.replace("__", "."): v for k, v in options.items()}))

    return make


@pytest.fixture
def one_step():
    """Makes one step of a job; returns the job."""

    def make(job, step=0):
        indices = torch.from_numpy(job.batches.indices(step).copy())
        train_step(job, Batch(job.images[indices], job.labels[indices], indices, step), 0.01)
        return job

    return make
