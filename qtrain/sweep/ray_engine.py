"""The engine for many machines: each trial a task of a ray cluster, its folder on a path that all machines share."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

from qtrain.errors import QtrainError
from qtrain.sweep import worker
from qtrain.sweep.engine import TICK_S, Interrupted, OnDone, Trial

RETRIES = 3
"""Times a trial begins again, from its last checkpoint, on another machine when its own is lost."""
LOCK_WAIT_S = 30
"""How long a repeated trial waits for the lost machine's process to let go of the run's folder."""


def run_ray(
    waiting: list[Trial], address: str, on_done: OnDone, n_threads: int = 1,
    on_tick: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Carry out all trials on the ray cluster at `address` ("": one started on this machine), `n_threads` cores each,
    and those `on_done` adds to the list, which is empty afterwards. `on_tick` is called every TICK_S.

    Raises QtrainError without ray or without the cluster, Interrupted on Ctrl-C.
    """
    with contextlib.redirect_stdout(sys.stderr):  # ray prints the cluster's news, which are no result
        ray = _connected(address)
        try:
            _run(ray, waiting, on_done, n_threads, on_tick)
        finally:
            ray.shutdown()


def _run(ray: Any, waiting: list[Trial], on_done: OnDone, n_threads: int, on_tick: Callable[[], None]) -> None:
    task = ray.remote(num_cpus=n_threads, max_retries=RETRIES)(train_when_free)
    running: dict[Any, Trial] = {}
    try:
        while waiting or running:
            while waiting:
                trial = waiting.pop(0)
                running[task.remote(*trial.arguments())] = trial
            for done in ray.wait(list(running), num_returns=1, timeout=TICK_S)[0]:
                on_done(running.pop(done), _error(ray, done))
            on_tick()
    except KeyboardInterrupt:
        for reference in running:
            ray.cancel(reference)  # as Ctrl-C there: the run writes a checkpoint
        ray.wait(list(running), num_returns=len(running), timeout=LOCK_WAIT_S)
        raise Interrupted("interrupted, nothing is lost; the same command goes on from here") from None


def train_when_free(text: str, path: str, watch: worker.Watch | None = None) -> str:
    """worker.train, once nobody else holds the folder."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        error = worker.train(text, path, watch)
        if "is in use by" not in error or time.monotonic() > deadline:
            return error
        time.sleep(1)


def _error(ray: Any, reference: Any) -> str:
    try:
        return str(ray.get(reference))
    except ray.exceptions.RayError as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise QtrainError("--engine ray needs ray; install it with: pip install 'qtrain[ray]'") from None
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", include_dashboard=None)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise QtrainError(
            f"--address {address}: no ray cluster there ({reason}); start one with: ray start --head"
        ) from None
    return ray
