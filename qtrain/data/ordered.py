"""Streams that are not shuffled: runs of one class, and classes that come one group after another.

Each is a function of (seed, step), as the shuffled one is: a resumed run needs nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtrain.data.streams import Batches, generator
from qtrain.errors import QtrainError

RUNS = 3
"""Tells the random numbers of the runs' order from those of the permutations."""


def _no_labels() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class CorrelatedBatches(Batches):
    """Temporally correlated: instances of one class come `run_length` at a time (the STC of Wu et al. 2021, arXiv
    2106.03796), the runs in random order; every instance once an epoch, so that a class's last run may be shorter.

    labels: int64 [n].
    """

    labels: NDArray[np.int64] = field(default_factory=_no_labels, repr=False)
    run_length: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.labels) != self.n or self.run_length < 1:
            raise QtrainError(f"{len(self.labels)} labels for {self.n} instances, run length {self.run_length}")

    @cached_property
    def _orders(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The permutation [n] of an epoch."""
        if epoch not in self._orders:
            self._orders.clear()
            rng = generator(self.seed, epoch, RUNS)
            runs: list[NDArray[np.int64]] = []
            for label in np.unique(self.labels):
                members = rng.permutation(np.flatnonzero(self.labels == label))
                runs += np.split(members, range(self.run_length, len(members), self.run_length))
            order = np.concatenate([runs[i] for i in rng.permutation(len(runs))])
            order.flags.writeable = False
            self._orders[epoch] = order
        return self._orders[epoch]


@dataclass(frozen=True, eq=False)
class IncrementalBatches(Batches):
    """Class-incremental: the run is cut into `n_tasks` equal parts of its steps, and part t shows the t-th group of
    classes alone, shuffled anew whenever all its instances were seen. Groups are of neighbouring classes.

    labels: int64 [n]. Raises QtrainError for more tasks than classes or steps.
    """

    labels: NDArray[np.int64] = field(default_factory=_no_labels, repr=False)
    n_tasks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        n_classes = len(np.unique(self.labels))
        if len(self.labels) != self.n or not 1 <= self.n_tasks <= min(n_classes, self.n_steps):
            raise QtrainError(
                f"stream.n_tasks (--stream-n-tasks) = {self.n_tasks}: must be 1 to {min(n_classes, self.n_steps)}, "
                "the number of classes or of steps if that is less"
            )

    @cached_property
    def _tasks(self) -> list[tuple[NDArray[np.int64], Batches]]:
        tasks = []
        for task, classes in enumerate(np.array_split(np.unique(self.labels), self.n_tasks)):
            members = np.flatnonzero(np.isin(self.labels, classes))
            n_steps = self._first_step(task + 1) - self._first_step(task)
            tasks.append((members, Batches(len(members), self.batch_size, n_steps=n_steps, seed=self.seed)))
        return tasks

    def _first_step(self, task: int) -> int:
        return -(-task * self.n_steps // self.n_tasks)

    def indices(self, step: int) -> NDArray[np.int64]:
        if not 0 <= step < self.n_steps:
            raise IndexError(f"step {step} of {self.n_steps}")
        task = step * self.n_tasks // self.n_steps
        members, batches = self._tasks[task]
        return members[batches.indices(step - self._first_step(task))]


def batches(settings: Any, labels: NDArray[np.int64], batch_size: int, seed: int, **length: int) -> Batches:
    """The stream of an experiment's section `stream` over instances with these labels; `length` is n_epochs or
    n_steps. A drifting stream's order is shuffled: it is its images that change."""
    if settings.kind == "correlated":
        return CorrelatedBatches(
            len(labels), batch_size, seed=seed, labels=labels, run_length=settings.run_length, **length
        )
    if settings.kind == "class-incremental":
        return IncrementalBatches(len(labels), batch_size, seed=seed, labels=labels, n_tasks=settings.n_tasks, **length)
    return Batches(len(labels), batch_size, seed=seed, **length)
