"""The trials of a search: proposals in generations, trained in parallel, hopeless ones given up."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.report import Budget, FinishedRun, compare, read_runs
from qtrain.search.space import Space
from qtrain.store import Run, finished_runs
from qtrain.sweep import worker
from qtrain.sweep.engine import Trial
from qtrain.sweep.sweep import Sweep, carry_out

GENERATION = 4
"""Trials proposed from what all before have shown: fixed, so that a search is the same on any number of cores."""
SHARES = (0.5, 0.75)
"""Parts of a run after which a trial may be given up for its accuracy."""
GRANTED = 1.5
"""A trial may have to gain this much more than any before it did, and is still not given up."""
EXCESS = "excess"


class Trials:
    """Proposals in generations: the next is asked for when the last is done."""

    def __init__(
        self, space: Space, budget: Budget, n_trials: int, out: Path, on_change: Callable[[Sweep], None] | None = None
    ) -> None:
        self.space, self.budget, self.n_trials, self.out, self.on_change = space, budget, n_trials, out, on_change
        self.known = finished_runs(out) if out.is_dir() else {}
        self.sweep = Sweep([], n_planned=n_trials)
        self.runs: list[FinishedRun] = []
        self.errors: dict[Path, str] = {}
        self.waiting: list[Trial] = []
        self.generation: list[tuple[Any, Path]] = []
        self.study = _study(space.base.seed)

    def run(self, n_workers: int, engine: str, address: str) -> None:
        """Carry out all trials as `sweep.carry_out` does. Raises Interrupted on Ctrl-C."""
        self._advance()
        self._show()
        carry_out(self.waiting, self._done, self._show, n_workers, engine, address)

    def _done(self, trial: Trial, error: str) -> None:
        self.errors[trial.path] = error
        if not error:
            self.sweep.computed.append(trial.path)
        elif error.startswith(worker.STOPPED):
            self.sweep.stopped.append(trial.path)
        else:
            self.sweep.failed.append({"run": str(trial.path), "error": error, "seed": trial.experiment.seed})
        self._advance()

    def _advance(self) -> None:
        """Settle a generation that is done and ask for the next, until there is something to wait for."""
        while all(path in self.errors for _, path in self.generation):
            for asked, path in self.generation:
                self._tell(asked, path)
            self.generation = []
            if len(self.sweep.folders) >= self.n_trials:
                break
            self._ask()

    def _show(self) -> None:
        if self.on_change is not None:
            self.on_change(self.sweep)

    def _ask(self) -> None:
        watch = None
        if len(self.runs) >= GENERATION:  # a miss must be near something: the first trials are not given up
            watch = worker.Watch(self.budget.max_energy_j, self._step_limit_j(), self._floors())
        for _ in range(min(GENERATION, self.n_trials - len(self.sweep.folders))):
            asked = self.study.ask()
            choice = {
                name: values[asked.suggest_categorical(name, range(len(values)))]
                for name, values in self.space.dimensions.items()
            }
            experiment = self.space.experiment(choice)
            path = self.known.get(experiment.id, self.out / experiment.id)
            self.generation.append((asked, path))
            self.sweep.folders.append(path)
            self.sweep.experiments.append(experiment)
            if experiment.id in self.known or path in self.errors:
                self.errors.setdefault(path, "")
                self.sweep.reused.append(path)
            elif path in [trial.path for trial in self.waiting]:
                self.sweep.reused.append(path)
            else:
                (path / worker.PROGRESS).unlink(missing_ok=True)  # of a search that was killed
                threads = max(experiment.run.threads, 1)
                self.waiting.append(Trial(experiment.with_options({"run.threads": threads}), path, watch))

    def _tell(self, asked: Any, path: Path) -> None:
        from optuna.trial import TrialState

        if self.errors[path]:
            stopped = self.errors[path].startswith(worker.STOPPED)
            if stopped:
                asked.set_user_attr(EXCESS, self._excess_so_far(path))
            self.study.tell(asked, state=TrialState.PRUNED if stopped else TrialState.FAIL)
            return
        run = next((run for run in self.runs if run.path == path), None)
        if run is None:
            run = self.read(path)
            self.runs.append(run)
        row = compare([run])[0]
        asked.set_user_attr(EXCESS, list(self.budget.excess(row).values()))
        self.study.tell(asked, list(row.objectives))

    def _excess_so_far(self, path: Path) -> list[float]:
        """By how much a trial that was given up was above the limits it is watched for."""
        last, limits = Run.open(path).metrics()[-1], self.budget
        spent_j, step_limit_j, accuracy = last["energy_j"], self._step_limit_j(), last["accuracy"]
        return [
            spent_j / limits.max_energy_j - 1 if limits.max_energy_j else -1.0,
            spent_j / last["step"] / step_limit_j - 1 if step_limit_j else -1.0,
            -1.0 if accuracy is None else (limits.min_accuracy or 0.0) - accuracy,
        ]

    def _step_limit_j(self) -> float | None:
        """Energy of a mean step above which a limit is broken: there are no more updates than steps."""
        limits = (self.budget.max_step_energy_j, self.budget.max_update_energy_j)
        return min((limit for limit in limits if limit is not None), default=None)

    def read(self, path: Path) -> FinishedRun:
        """A finished run, priced on the search's device."""
        execution = self.space.base.run
        return read_runs([path], execution.devices[:1], execution.kernels or None)[0][0]

    def _floors(self) -> tuple[tuple[float, float], ...]:
        """Accuracies below which no finished trial has been where it still reached the accuracy demanded.

        From each share of the steps on, no trial has gained more than the largest gain among them.
        """
        demanded = self.budget.min_accuracy
        if demanded is None:
            return ()
        floors = []
        for share in SHARES:
            gains = [gain for run in self.runs if (gain := _gain(run, share)) is not None]
            if gains:
                floors.append((share, demanded - GRANTED * max(gains)))
        return tuple(floors)


def _gain(run: FinishedRun, share: float) -> float | None:
    """Accuracy gained after a share of the steps; None if it was not measured before."""
    n_steps, last = run.result["n_steps"], run.result["accuracy"]
    there = [row["accuracy"] for row in run.run.metrics() if row["step"] <= share * n_steps]
    return None if last is None or not there or there[-1] is None else max(last - there[-1], 0.0)


def _study(seed: int) -> Any:
    """A multi-objective study with constraints. Raises QtrainError without optuna."""
    try:
        import optuna
    except ImportError:
        raise QtrainError("qtrain search needs optuna; install it with: pip install 'qtrain[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental in optuna 4, to be replaced in optuna 7
        sampler = optuna.samplers.TPESampler(
            seed=seed, multivariate=True, n_startup_trials=2 * GENERATION,
            constraints_func=lambda trial: trial.user_attrs.get(EXCESS, [1.0]),
        )  # fmt: skip
    return optuna.create_study(directions=["minimize"] * 3, sampler=sampler)
