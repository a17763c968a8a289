"""One training step: the filter chooses, the recipe learns from the kept, the filter learns from the losses."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from qtrain.errors import QtrainError
from qtrain.layers.quantizer import Clock
from qtrain.recipes import Batch
from qtrain.training.setup import Job


@dataclass(slots=True)
class StepRecord:
    """What one step did: instances, how many of the kept went backward, the kept ones' mean loss (None if none was
    kept), whether the weights were updated, and the filter's metrics."""

    seen: int
    kept: int
    uncertain: int
    backward: int
    loss: float | None
    updated: bool = False
    metrics: dict[str, float] = field(default_factory=dict)


def train_step(job: Job, batch: Batch, rate: float) -> StepRecord:
    """One step of the stream at learning rate `rate`.

    Nothing kept means no main step: no update, no decay; the schedule advances all the same. Raises QtrainError
    naming the step when a loss or a tensor is not finite.
    """
    try:
        return _step(job, batch, rate)
    except QtrainError as error:
        raise QtrainError(f"step {batch.step}: {error}") from error


def _step(job: Job, batch: Batch, rate: float) -> StepRecord:
    seed, step = job.experiment.seed, batch.step
    job.net.step = step
    choice = job.filter.choose(batch.images, batch.labels, step)
    kept, uncertain = choice.kept, choice.uncertain
    uncertain_losses = torch.zeros(0)
    if len(uncertain):
        uncertain_losses = _finite(job.recipe.judge(job.net, batch, uncertain))
    losses, own, updated, n_backward = torch.zeros(0), {}, False, 0
    if len(kept):
        outcome = job.recipe.learn(job.net, batch, kept, job.filter.backward_rows)
        losses = _finite(outcome.losses)
        own, updated, n_backward = outcome.metrics, outcome.updated, outcome.n_backward
        if updated:
            share = n_backward / len(batch.images) if job.experiment.filter.mean_over == "streamed" else 1.0
            job.optimizer.step(Clock(seed, step), outcome.scale * share, rate)
            job.recipe.updated(job.net)
    metrics = own | job.filter.learn(choice, losses, uncertain_losses, step)
    mean = float(losses.double().mean()) if len(losses) else None
    return StepRecord(len(batch.images), len(kept), len(uncertain), n_backward, mean, updated, metrics)


def _finite(losses: Tensor) -> Tensor:
    if not torch.isfinite(losses).all():
        raise QtrainError("the loss is not finite; lower the learning rate (--lr) or raise the bits")
    return losses
