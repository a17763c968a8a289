"""A comparison in the terminal: one table a device, the best under each budget, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from qtrain.console import kib, percent, say, si
from qtrain.errors import QtrainError
from qtrain.report.budget import Answer
from qtrain.report.comparison import Row

SORTS: dict[str, Callable[[Row], Any]] = {
    "accuracy": lambda row: row.objectives[0],
    "energy": lambda row: row.energy_j,
    "time": lambda row: row.time_s,
    "ram": lambda row: row.peak_ram_bytes,
    "macs": lambda row: -row.saved_macs,
    "bitops": lambda row: -row.saved_bitops,
    "setting": lambda row: 0,  # as they were given
}
"""Orders of a table: best first."""

LIMITS = {
    "max_energy_j": ("energy of the run", lambda limit: f"at most {si(limit, 'J')}"),
    "max_step_energy_j": ("energy of a mini-batch", lambda limit: f"at most {si(limit, 'J')}"),
    "max_update_energy_j": ("energy of an update", lambda limit: f"at most {si(limit, 'J')}"),
    "max_ram_bytes": ("peak RAM", lambda limit: f"at most {kib(limit)}"),
    "min_accuracy": ("accuracy", lambda limit: f"at least {percent(limit)}"),
}


def sorted_rows(rows: Sequence[Row], by: str) -> list[Row]:
    """The rows, best first. Raises QtrainError for an unknown order."""
    if by not in SORTS:
        raise QtrainError(f"--sort {by}: must be one of {', '.join(SORTS)}")
    return sorted(rows, key=SORTS[by])


def show(
    console: Console, rows: Sequence[Row], answers: Sequence[Answer], sweep: Any, unfinished: Sequence[Any]
) -> None:
    """A comparison: counts, tables, answers to the budgets, what failed or is unfinished."""
    if sweep.computed or sweep.failed:
        console.print(f"{sweep.n_trials} trials: {len(sweep.computed)} computed, {len(sweep.reused)} reused")
    show_rows(console, rows)
    for answer in answers:
        say(console, answer_line(answer))
    for failure in sweep.failed:
        say(console, f"failed {failure['run']}: {failure['error']}")
    for path in unfinished:
        say(console, f"unfinished {path}: qtrain simulate --resume {path}")


def show_rows(console: Console, rows: Sequence[Row]) -> None:
    """One table a device, in the order of the rows."""
    for device in dict.fromkeys(row.device for row in rows):
        there = [row for row in rows if row.device == device]
        table = _table(there)
        if (width := console.measure(table, options=console.options.update(max_width=1000)).maximum) > console.width:
            if console.is_terminal:
                table = _table(there, ("energy",))
            else:  # what goes to a file or a pipe is not cut to a terminal's width
                console.width = width
        console.print(table)
    say(console, "* on the Pareto front: no other setting that fits is as good in accuracy, energy and RAM")
    say(console, "energy: of the run; latency: of an instance; saved: against dense float32 training, same stream")


def _table(rows: Sequence[Row], savings: Sequence[str] = ("MACs", "bitops", "energy")) -> Table:
    first = rows[0]
    table = Table(title=f"{first.device} ({first.basis})", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("")
    for key in list(first.values) or ["setting"]:
        table.add_column(key.replace("-", "-\n", 1), overflow="fold")
    known = any(row.accuracy is not None for row in rows)
    for name in (
        "accuracy" if known else "loss",
        *(f"{of}\nsaved" for of in savings),
        "energy",
        "latency",
        "RAM",
        "fits",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        setting = [_cell(value) for value in row.values.values()] or [row.setting]
        saved = {"MACs": row.saved_macs, "bitops": row.saved_bitops, "energy": row.saved_energy_vs_fp32}
        table.add_row(
            "*" if row.pareto else "", *setting, quality(row), *(percent(saved[of]) for of in savings),
            si(row.energy_j, "J"), si(row.instance_time_s, "s"), kib(row.peak_ram_bytes),
            {True: "yes", False: "no", None: "-"}[row.fits],
            style=None if row.pareto else "dim",
        )  # fmt: skip
    return table


def _cell(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def quality(row: Row) -> str:
    """Accuracy, or where there is none the loss, as mean ± standard deviation over the seeds."""
    if row.accuracy is None:
        return f"{row.loss:.4g}" + ("" if row.loss_std is None else f" ± {row.loss_std:.2g}")
    return percent(row.accuracy) + ("" if row.accuracy_std is None else f" ± {100 * row.accuracy_std:.1f}")


def answer_line(answer: Answer) -> str:
    """What a budget allows, in one sentence."""
    wanted = ", ".join(f"{name} {shown(limit)}" for name, shown, limit in _limits(answer))
    row = answer.row
    if row is None:
        return f"{wanted}: no runs"
    what = f"{row.setting} ({quality(row)}, {si(row.energy_j, 'J')}, {kib(row.peak_ram_bytes)})"
    if answer.met:
        return f"best with {wanted} on {row.device}: {what}"
    wanted = f"nothing has {wanted} on {row.device}" if wanted else f"nothing fits {row.device}"
    missed = sorted(answer.misses, key=answer.misses.__getitem__, reverse=True)
    binds, *others = (_missed(answer, row, key) for key in missed)
    also = f"; also {'; '.join(others)}" if others else ""
    return f"{wanted}; nearest: {what}; what binds: {binds}{also}"


def _missed(answer: Answer, row: Row, key: str) -> str:
    """A limit that was missed, and by how much."""
    if key == "min_accuracy" and row.accuracy is not None and answer.budget.min_accuracy is not None:
        return f"accuracy, missed by {100 * (answer.budget.min_accuracy - row.accuracy):.2g} points"
    name = "the device's memory" if key == "fits" else LIMITS[key][0]
    return f"{name}, missed by {100 * answer.misses[key]:.2g} %"


def _limits(answer: Answer) -> list[tuple[str, Callable[[float], str], float]]:
    return [(*LIMITS[key], limit) for key, limit in answer.budget.limits().items()]
