"""The answer of a search: one setting, checked at a second seed, and why; or the nearest miss."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from qtrain.console import si
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.report import Budget, Row, compare, read_runs
from qtrain.report.budget import Answer
from qtrain.report.settings import differences, label
from qtrain.report.table import LIMITS, answer_line
from qtrain.search.space import Space
from qtrain.search.trials import Trials
from qtrain.sweep import ENGINES, Sweep, run_trials

CHECKED = 3
"""Settings that are checked at another seed at most, until one keeps within the limits."""


@dataclass
class Found:
    """The answer of a search, what it rests on, and how many trials it took."""

    answer: Answer
    experiment: Experiment
    reasons: list[str]
    baseline_accuracy: float | None
    sweep: Sweep

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        row = self.answer.row
        return {
            **self.answer.to_json(),
            "row": None if row is None else row.to_json(),
            "reasons": self.reasons,
            "baseline_accuracy": self.baseline_accuracy,
            "trials": self.sweep.n_trials,
            "computed": len(self.sweep.computed),
            "reused": len(self.sweep.reused),
            "failed": self.sweep.failed,
            "stopped_early": len(self.sweep.stopped),
        }

    def to_toml(self) -> str:
        """The recommended experiment, the reasons as comments above it."""
        return "".join(f"# {line}\n" for line in self.reasons) + self.experiment.to_toml()


def search(
    space: Space,
    budget: Budget,
    *,
    n_trials: int = 40,
    max_lost_points: float | None = None,
    out: str | Path = "runs",
    n_workers: int = 0,
    engine: str = ENGINES[0],
    address: str = "",
    on_change: Callable[[Sweep], None] | None = None,
) -> Found:
    """The best setting of `space` within `budget` on the base experiment's first device.

    `max_lost_points`: points of accuracy it may lose against dense float32 training on the same stream and seed, the
    best over the batch sizes and whatever else is searched and spares no work.
    Trials lie beneath `out` and are reused. The recommended setting holds at a second seed too; without any within
    the limits the answer is the nearest miss. Raises QtrainError if every trial failed, Interrupted on Ctrl-C.
    """
    out, base = Path(out).absolute() if engine == "ray" else Path(out), space.base
    train = partial(run_trials, out=out, n_workers=n_workers, engine=engine, address=address)
    baseline = None
    if max_lost_points is not None:
        baseline = _baseline_accuracy(train(space.baselines(), on_change=on_change))
        demanded = max(budget.min_accuracy or 0.0, baseline - max_lost_points / 100)
        budget = dataclasses.replace(budget, min_accuracy=demanded)
    trials = Trials(space, budget, n_trials, out, on_change)
    trials.run(n_workers, engine, address)
    if not trials.runs:
        raise QtrainError(f"no trial finished; the first: {[*trials.errors.values(), 'none was tried'][0]}")
    answer = _checked(trials, budget, train)
    row = answer.row
    assert row is not None
    chosen = next(run.experiment for run in trials.runs if run.path == row.runs[0])
    chosen = chosen.with_options({"run.out": "", "run.threads": base.run.threads})
    values = differences([base, chosen])[1]
    answer = Answer(budget, dataclasses.replace(row, setting=label(values), values=values))
    return Found(answer, chosen, _reasons(answer, trials, baseline), baseline, trials.sweep)


def _baseline_accuracy(sweep: Sweep) -> float:
    """The highest accuracy of the runs of dense float32 training."""
    if not sweep.runs:
        raise QtrainError(f"the dense float32 run failed: {sweep.failed[0]['error']}")
    found = [run.result["accuracy"] for run in read_runs(sweep.runs)[0]]
    if None in found:
        raise QtrainError("--max-lost-points: this model has no accuracy")
    return float(max(found))


def _checked(trials: Trials, budget: Budget, train: Callable[..., Sweep]) -> Answer:
    """The best setting that keeps within the limits on average over its own seed and the next."""
    rows = compare(trials.runs)
    within = sorted((row for row in rows if not budget.misses(row)), key=budget.rank)
    both: list[Row] = []
    for row in itertools.islice(within, CHECKED):
        run = next(run for run in trials.runs if run.path == row.runs[0])
        again = run.experiment.with_options({"seed": run.experiment.seed + 1})
        sweep = train([again])
        runs = [run, *map(trials.read, sweep.runs)]
        both.append(compare(runs)[0])
        if not budget.misses(both[-1]):
            return Answer(budget, both[-1])
    return budget.best(both or rows)


def _reasons(answer: Answer, trials: Trials, baseline: float | None) -> list[str]:
    """Why this setting: what was tried, what it keeps within, what binds."""
    row, budget = answer.row, answer.budget
    assert row is not None
    n_within = sum(not budget.misses(one) for one in compare(trials.runs))
    lines = [answer_line(answer)]
    if baseline is not None and row.accuracy is not None:
        lost = 100 * (baseline - row.accuracy)
        lines.append(f"dense float32 on the same stream: {100 * baseline:.2f} %; this loses {lost:.2f} points")
    lines.append(
        f"a mini-batch of the stream costs {si(row.step_energy_j, 'J')} on average, an update of the weights "
        f"{si(row.update_energy_j, 'J')} with all that comes before it"
    )
    lines.append(
        f"{trials.sweep.n_trials} trials, {len(trials.sweep.stopped)} stopped early, {n_within} within all limits; "
        f"chosen for {'the least energy' if budget.min_accuracy is not None else 'the highest accuracy'}"
    )
    if answer.met:
        lines.append(f"checked at seeds {', '.join(map(str, row.seeds))}: {_slack(budget, row)}")
    return lines


def _slack(budget: Budget, row: Row) -> str:
    """How far within its tightest limit a row stays."""
    excess = budget.excess(row)
    if not excess:
        return "there were no limits"
    tightest = max(excess, key=excess.__getitem__)
    name = "the device's memory" if tightest == "fits" else LIMITS[tightest][0]
    return f"the tightest limit is {name}, kept with {-100 * excess[tightest]:.1f} % to spare"
