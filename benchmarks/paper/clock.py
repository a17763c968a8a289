"""Does filtered and pruned training take less real time? The same stream, steps interleaved, ratios paired."""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.paper.rows import Options, Table
from qtrain.experiment import Experiment
from qtrain.recipes import Batch
from qtrain.training.setup import Job, build
from qtrain.training.step import train_step


def seconds(job: Job, step: int) -> float:
    """Of one training step at the first rate, without augmentation; the filter's forward and learning included."""
    rows = torch.from_numpy(job.batches.indices(step).copy())
    batch = Batch(job.images[rows], job.labels[rows], rows, step)
    started = time.perf_counter()
    train_step(job, batch, job.experiment.optimizer.lr)
    return time.perf_counter() - started


def ratios(table: Table, row: str, bits: int, n_steps: int, n_warm_up: int, more: Options) -> list[float]:
    """Time of each step of `row` over that of the dense step on the same mini-batch, after `n_warm_up` steps."""
    width = {"numbers.bits": bits}
    options = (table.options(name, 1) | width | more for name in (table.reference, row))
    dense, other = (build(Experiment().with_options(given)) for given in options)
    found = []
    for step in range(n_warm_up + n_steps):
        order = (dense, other) if step % 2 else (other, dense)  # neither always meets the other's caches
        took = {id(job): seconds(job, step) for job in order}
        found.append(took[id(other)] / took[id(dense)])
    return found[n_warm_up:]


def sentence(found: list[float]) -> str:
    """Median and quartiles in words."""
    low, median, high = statistics.quantiles(found, n=4)
    return f"{median:.2f} of the dense step's time (quartiles {low:.2f} to {high:.2f}, {len(found)} paired steps)"
