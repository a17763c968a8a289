"""A run while it trains, and its closing tables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from qtrain.console.bills import show_bills
from qtrain.console.words import percent, say, si


@contextlib.contextmanager
def progress_display(console: Console) -> Iterator[Callable[[Any], None] | None]:
    """A live line of step, accuracy, kept share, threshold, energy and time left; nothing if not a terminal."""
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=10),
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("", total=None)

        def show(now: Any) -> None:
            known = {
                "accuracy": percent(now.accuracy) if now.accuracy is not None else None,
                "loss": f"{now.loss:.3g}" if now.loss is not None else None,
                "kept": percent(now.kept_share),
                "energy": si(now.energy_j, "J"),
                "threshold": f"{now.threshold:.3g}" if now.threshold is not None else None,
            }  # the most important first: what a narrow terminal has no place for is cut off
            state = "  ".join(f"{name} {text}" for name, text in known.items() if text is not None)
            bar.update(task, completed=now.step, total=now.n_steps, description=state)

        yield show


def show_result(console: Console, result: dict[str, Any]) -> None:
    """The closing tables of a run."""
    seen = result["instances"]["seen"]
    head = Table(title=f"{result['model']} on {result['data']}, seed {result['seed']}", show_header=False)
    before = result.get("accuracy_before")
    accuracy = percent(result["accuracy"]) + ("" if before is None else f"  (before: {percent(before)})")
    baseline = result.get("baseline")
    rows = [
        ("test accuracy", accuracy if result["accuracy"] is not None else "- (reconstruction)"),
        ("test loss", f"{result['loss']:.4g}"),
    ]
    if baseline and result["accuracy"] is not None:
        points = 100 * (result["accuracy"] - baseline["accuracy"])
        rows.append(
            ("dense float32, same stream", f"{percent(baseline['accuracy'])}  (difference {points:+.2f} points)")
        )
    kept, uncertain = result["instances"]["kept"], result["instances"]["uncertain"]
    backward = result["instances"].get("backward", kept)  # runs of earlier versions do not know
    rows += [
        ("instances seen", f"{seen:,}"),
        ("kept", f"{kept:,}  ({percent(kept / max(seen, 1))})"),
        *([("gone backward", f"{backward:,}  ({percent(backward / max(seen, 1))})")] if backward != kept else []),
        ("uncertain", f"{uncertain:,}  ({percent(uncertain / max(seen, 1))})"),
        ("MACs", f"{si(result['macs']['total'])}  (dense: {si(result['macs']['dense_fp32'])})"),
        ("MACs saved", percent(result["saved"]["macs"])),
        ("bit operations saved", f"{percent(result['saved']['bitops'])} of dense float32, "
                                 f"{percent(result['saved_vs_same_bits']['bitops'])} of dense at the same bits"),
        *_filter_network(result),
        *_papers_view(result),
        *_learned(result),
        *([("not verifiable", result["not_verifiable"])] if result.get("not_verifiable") else []),
        ("wall time", f"{result['wall_time_s']:.1f} s"),
        ("run", result["run"]),
    ]  # fmt: skip
    for name, value in rows:
        head.add_row(name, value)
    console.print(head)
    show_bills(console, result["bills"])
    for note in result.get("warnings", ()):
        say(console, f"warning: {note}")


def _filter_network(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What the filter's own network costs; runs of earlier versions do not know its name."""
    name = result.get("filter_network")
    share = result["macs"].get("filter_share_of_forward")
    return [("filter network", f"{name}, {percent(share)} of a forward pass")] if name else []


def _papers_view(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What the filter's paper would say was saved; runs of earlier versions do not know."""
    view = result.get("paper_accounting")
    return [("saved as Wu et al. 2020 count", percent(1 - view["remaining"]))] if view else []


def _learned(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What recipe and scenario report besides the accuracy: shares, and tables of shares."""
    found = {name: result[name] for name in ("source_accuracy", "prequential_accuracy") if name in result}
    rows = []
    for name, value in {**found, **result.get("details", {})}.items():
        if isinstance(value, dict):
            text = ", ".join(f"{key}: {percent(share)}" for key, share in value.items())
        else:
            text = str(value) if isinstance(value, int) else percent(value)
        rows.append((name.replace("_", " "), text))
    return rows
