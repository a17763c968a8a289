"""What a worker process does: one trial at a time, alone with one thread, gone when its sweep is gone."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from pathlib import Path

from qtrain.errors import QtrainError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
ERROR = "error.txt"
"""File of a run's folder with the traceback of an unexpected error."""


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


def train(text: str, path: str) -> str:
    """Carry out the experiment of the TOML `text` in the folder `path`; "" or the error in one line."""
    from qtrain.experiment import Experiment
    from qtrain.simulate import simulate_experiment

    trace = Path(path) / ERROR
    try:
        simulate_experiment(Experiment.from_toml(text).with_options({"run.out": path}))
    except QtrainError as error:
        return " ".join(str(error).split())
    except Exception as error:  # whatever it is: the other trials go on, and nobody must guess what happened here
        trace.write_text(traceback.format_exc())
        return f"{type(error).__name__}: {' '.join(str(error).split())} (traceback in {trace})"
    trace.unlink(missing_ok=True)
    return ""
