"""What a worker process does: one trial at a time, alone with one thread, gone when its sweep is gone."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ERROR = "error.txt"
"""File of a run's folder with the traceback of an unexpected error."""
PROGRESS = "progress"
"""File of a run's folder, while a worker trains it, with the steps done and planned: seen on every machine."""

STOPPED = "stopped early: "
"""What the error of a trial that was given up begins with."""
_METER_SHARE = 1.05
"""The energy so far is metered a little coarser than a bill: a limit counts as broken at 5 % above it."""


@dataclass(frozen=True)
class Watch:
    """When a trial is hopeless: energy above a limit of the run or of a mean step, in joules, or too little accuracy.

    `floors` are (share of the steps done, accuracy needed from there on), ascending.
    """

    max_energy_j: float | None = None
    max_step_energy_j: float | None = None
    floors: tuple[tuple[float, float], ...] = ()

    def check(self, now: Any) -> None:
        """Raise QtrainError if the Progress `now` is that of a hopeless trial."""
        limits = [limit for limit in (self.max_energy_j, self.max_step_energy_j) if limit is not None]
        if self.max_step_energy_j is not None:
            limits[-1] *= now.n_steps
        if limits and now.energy_j > _METER_SHARE * min(limits):
            raise QtrainError(f"{STOPPED}{now.energy_j:.3g} J after step {now.step}, more than the limit of the run")
        floor = max((need for share, need in self.floors if now.step >= share * now.n_steps), default=0.0)
        if now.accuracy is not None and now.accuracy < floor:
            raise QtrainError(
                f"{STOPPED}accuracy {100 * now.accuracy:.1f} % after step {now.step} of {now.n_steps}, "
                f"from where no trial reached the accuracy demanded"
            )


def progress(path: Path) -> tuple[int, int] | None:
    """(steps done, planned) of the trial that is being trained in the folder `path`; None if none has come so far."""
    try:
        done, planned = map(int, (path / PROGRESS).read_text().split())
    except (OSError, ValueError):  # not there, or only half written
        return None
    return done, planned


def start(n_threads: int) -> None:
    """Prepare a worker before torch is imported: its threads, and its end.

    Its own process group keeps the terminal's Ctrl-C away: the sweep asks each worker once, by SIGTERM, for a
    checkpoint. A worker whose sweep was killed ends at once; its checkpoint is whole all the same.
    """
    for name in THREAD_VARIABLES:
        os.environ[name] = str(n_threads)
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def train(text: str, path: str, watch: Watch | None = None) -> str:
    """Carry out the experiment of the TOML `text` in the folder `path`; "" or the error in one line."""
    from qtrain.experiment import Experiment
    from qtrain.simulate import simulate_experiment

    trace, note = Path(path) / ERROR, Path(path) / PROGRESS

    def follow(now: Any) -> None:
        note.write_text(f"{now.step} {now.n_steps}\n")
        (watch or Watch()).check(now)

    try:
        simulate_experiment(Experiment.from_toml(text).with_options({"run.out": path}), follow)
    except QtrainError as error:
        return " ".join(str(error).split())
    except Exception as error:  # whatever it is: the other trials go on, and nobody must guess what happened here
        trace.write_text(traceback.format_exc())
        return f"{type(error).__name__}: {' '.join(str(error).split())} (traceback in {trace})"
    finally:
        note.unlink(missing_ok=True)
    trace.unlink(missing_ok=True)
    return ""
