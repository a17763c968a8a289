"""The progress of a sweep in a terminal: trials done, running and failed, and how far each running one is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column

from qtrain.report.settings import differences, label

MAX_SHOWN = 8
"""Lines of running trials at most."""
_SPEED_S = 3600
"""Time over which the speed is taken that tells the time left."""


@contextlib.contextmanager
def sweep_display(console: Console) -> Iterator[Callable[[Any], None] | None]:
    """A live line of the sweep and one of each running trial with the time left; nothing if not a terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)), BarColumn(bar_width=12),
        TaskProgressColumn(), TimeRemainingColumn(), TextColumn("left"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, speed_estimate_period=_SPEED_S, expand=True) as bar:
        yield _Display(bar).show


class _Display:
    """Keeps a live display in step with a sweep."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.whole = bar.add_task("", total=None)
        self.lines: dict[Path, TaskID] = {}
        self.labels: dict[Path, str] = {}

    def show(self, sweep: Any) -> None:
        """Draw the state of `sweep`."""
        running = sweep.running
        n_done = len(sweep.computed) + len(sweep.stopped) + len(sweep.failed)
        counts = {"reused": len(sweep.reused), "running": len(running), "stopped early": len(sweep.stopped),
                  "failed": len(sweep.failed)}  # fmt: skip
        total = sweep.n_trials - len(sweep.reused)
        state = ", ".join([f"{n_done} of {total} trials", *(f"{n} {name}" for name, n in counts.items() if n)])
        share = sum(done / max(planned, 1) for done, planned in running.values())
        self.bar.update(self.whole, description=state, total=total, completed=n_done + share)
        for folder in self.lines.keys() - running.keys():
            self.bar.remove_task(self.lines.pop(folder))
        for folder, (done, planned) in list(running.items())[:MAX_SHOWN]:
            if folder not in self.lines:
                self.lines[folder] = self.bar.add_task("  " + self._label(sweep, folder), total=planned, completed=done)
            self.bar.update(self.lines[folder], completed=done)

    def _label(self, sweep: Any, folder: Path) -> str:
        """What sets a trial apart from the others."""
        if folder not in self.labels:
            several = len({experiment.seed for experiment in sweep.experiments}) > 1
            values = differences(sweep.experiments)
            for path, own, experiment in zip(sweep.folders, values, sweep.experiments, strict=True):
                self.labels[path] = label(own | ({"seed": experiment.seed} if several else {}))
        return self.labels[folder]
