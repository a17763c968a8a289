"""What a run leaves to be priced: everything it performed, how its networks were trained, what it streamed."""

from __future__ import annotations

from collections import Counter

from hwmodel.trace import Trace
from qtrain.summary import RunRecord
from qtrain.training.setup import Job


def run_record(job: Job, n_seen: int) -> RunRecord:
    """The record of a run that has streamed `n_seen` instances."""
    return RunRecord(
        trace=_trace(job, n_seen),
        schedule=job.schedule,
        filter_schedule=job.filter_schedule,
        batch_sizes=_batch_sizes(job),
    )


def _trace(job: Job, n_seen: int) -> Trace:
    """Everything performed so far, by both networks."""
    total = job.net.trace(job.schedule, job.batches.n_steps, n_seen)
    if job.filter_schedule is not None:
        total = total + job.filter.network.trace(job.filter_schedule)
    return total


def _batch_sizes(job: Job) -> dict[int, int]:
    """How many steps streamed how many instances."""
    return dict(Counter(len(job.batches.indices(step)) for step in range(job.batches.n_steps)))
