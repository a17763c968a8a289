"""The engine for one machine: trials in parallel processes that are spawned once and pinned to their threads."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.sweep import worker


class Interrupted(QtrainError):
    """A sweep stopped by Ctrl-C after its running trials wrote a checkpoint."""


@dataclass(frozen=True)
class Trial:
    """An experiment, the folder it is carried out in, and when to give it up."""

    experiment: Experiment
    path: Path
    watch: worker.Watch | None = None

    def arguments(self) -> tuple[str, str, worker.Watch | None]:
        """What a worker is given."""
        return self.experiment.to_toml(), str(self.path), self.watch


OnDone = Callable[[Trial, str], None]
"""Called after each trial with its error in one line, "" for none."""
TICK_S = 0.5
"""Time between two looks at the trials that are running."""


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_local(
    waiting: list[Trial], n_workers: int, on_done: OnDone, n_threads: int = 1,
    on_tick: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Carry out all trials in `n_workers` processes of `n_threads` threads each, and those `on_done` adds to the list.

    `on_tick` is called every TICK_S. The list is empty afterwards. A process that dies (killed, out of memory) takes
    its pool with it: the trials that were running are repeated, each alone, so that only the one to blame fails. Raises
    Interrupted on Ctrl-C.
    """
    suspects: list[Trial] = []
    while suspects or waiting:
        if suspects:
            for dead in _run_pool([suspects.pop()], 1, on_done, n_threads, on_tick):
                on_done(dead, "its process died twice (out of memory?)")
        else:
            suspects = _run_pool(waiting, n_workers, on_done, n_threads, on_tick)


def _run_pool(
    waiting: list[Trial], n_workers: int, on_done: OnDone, n_threads: int, on_tick: Callable[[], None]
) -> list[Trial]:
    """Take trials off `waiting` until none is left or a process dies; returns those that were running then."""
    n_workers = min(n_workers, len(waiting))
    if not n_workers:
        return []
    pool = ProcessPoolExecutor(n_workers, multiprocessing.get_context("spawn"), worker.start, (n_threads,))
    running: dict[Future[str], Trial] = {}
    try:
        while waiting or running:
            while waiting and len(running) < n_workers:
                trial = waiting[0]
                running[pool.submit(worker.train, *trial.arguments())] = trial
                waiting.pop(0)
            for done in wait(running, TICK_S, FIRST_COMPLETED).done:
                error = done.result()
                on_done(running.pop(done), error)
            on_tick()
    except BrokenProcessPool:
        return list(running.values())
    except KeyboardInterrupt:
        _stop(pool)
        raise Interrupted("interrupted, nothing is lost; the same command goes on from here") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return []


def _stop(pool: ProcessPoolExecutor) -> None:
    """Ask every worker for a checkpoint and wait for it; a second Ctrl-C ends them at once."""
    children = multiprocessing.active_children()
    try:
        for child in children:
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
    except KeyboardInterrupt:
        for child in children:
            child.kill()
