"""A sweep: the trials that the store does not hold yet are computed, the others reused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.store import finished_runs
from qtrain.sweep import worker
from qtrain.sweep.engine import OnDone, Trial, n_cores, run_local

ENGINES = ("local", "ray")


@dataclass
class Sweep:
    """Where a sweep stands: the folders of its trials, those reused from the store, computed, given up as hopeless,
    and failed with their error. `n_planned` trials in all where not every folder is known from the start.
    `experiments` are those of the folders."""

    folders: list[Path]
    reused: list[Path] = field(default_factory=list)
    computed: list[Path] = field(default_factory=list)
    stopped: list[Path] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    n_planned: int = 0
    experiments: list[Experiment] = field(default_factory=list)

    @property
    def n_trials(self) -> int:
        """Trials planned."""
        return max(len(self.folders), self.n_planned)

    @property
    def running(self) -> dict[Path, tuple[int, int]]:
        """Trials that are being trained: folder -> (steps done, planned)."""
        ended = {*self.reused, *self.computed, *self.stopped, *(Path(failure["run"]) for failure in self.failed)}
        found = {folder: worker.progress(folder) for folder in self.folders if folder not in ended}
        return {folder: steps for folder, steps in found.items() if steps is not None}

    @property
    def runs(self) -> list[Path]:
        """Folders of all finished trials, in the order of the trials."""
        done = {*self.reused, *self.computed}
        return [folder for folder in self.folders if folder in done]


def engines_apart(engine: str, texts: Mapping[str, Iterable[str]]) -> tuple[str, Mapping[str, Iterable[str]]]:
    """The engine of a sweep, and the texts of its options: an `engine` that is none of the ENGINES is `run.engine`."""
    return (engine, texts) if engine in ENGINES else (ENGINES[0], {**texts, "run.engine": (engine,)})


def run_trials(
    experiments: Sequence[Experiment],
    out: str | Path,
    *,
    n_workers: int = 0,
    engine: str = "local",
    address: str = "",
    on_change: Callable[[Sweep], None] | None = None,
) -> Sweep:
    """Carry out every experiment in its folder `out`/<id> unless a finished run with its id lies beneath `out`.

    `n_workers` processes (0: one a core) of `run.threads` threads each (0: one). A failed trial is noted and stops no
    other. `on_change` sees the sweep after each trial and every TICK_S. Raises QtrainError, Interrupted on Ctrl-C.
    """
    out = Path(out).absolute() if engine == "ray" else Path(out)
    known = finished_runs(out) if out.is_dir() else {}
    folders = [known.get(experiment.id, out / experiment.id) for experiment in experiments]
    sweep, trials = Sweep(folders, experiments=list(experiments)), []
    for experiment, folder in zip(experiments, sweep.folders, strict=True):
        if experiment.id in known:
            sweep.reused.append(folder)
        else:
            (folder / worker.PROGRESS).unlink(missing_ok=True)  # of a sweep that was killed
            threads = max(experiment.run.threads, 1)
            trials.append(Trial(experiment.with_options({"run.threads": threads}), folder))

    def note(trial: Trial, error: str) -> None:
        if error:
            sweep.failed.append({"run": str(trial.path), "error": error, "seed": trial.experiment.seed})
        else:
            sweep.computed.append(trial.path)

    def tick() -> None:
        if on_change is not None:
            on_change(sweep)

    tick()
    carry_out(trials, note, tick, n_workers, engine, address)
    return sweep


def carry_out(
    waiting: list[Trial],
    on_done: OnDone,
    on_tick: Callable[[], None],
    n_workers: int = 0,
    engine: str = ENGINES[0],
    address: str = "",
) -> None:
    """Carry out the trials of the list, and those `on_done` adds to it, by one of the ENGINES.

    `n_workers` processes of this machine (0: one a core), or ray's cluster at `address`. Raises QtrainError, and
    Interrupted on Ctrl-C.
    """
    n_threads = max((trial.experiment.run.threads for trial in waiting), default=1)
    if engine == "ray":
        from qtrain.sweep.ray_engine import run_ray

        run_ray(waiting, address, on_done, n_threads, on_tick)
    elif engine == "local":
        run_local(waiting, n_workers or max(n_cores() // n_threads, 1), on_done, n_threads, on_tick)
    else:
        raise QtrainError(f"--engine {engine}: must be one of {', '.join(ENGINES)}")
