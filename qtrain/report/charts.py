"""Charts of one run as plain data: what the page draws, and what the table behind each chart lists."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwmodel import devices, pricing
from hwmodel.operations import REPORT_PHASES
from qtrain.report.runs import FinishedRun
from qtrain.store.run import NUMBERS

DIGITS = 6
"""Significant digits of the page's numbers."""
Chart = dict[str, Any]
"""`kind` (how it is drawn), `title`, `note`, `columns` (name -> values: the data table), and the kind's own keys."""

ROLE_GROUPS = {
    "parameters": ("master weights", "momentum", "statistics", "weight codes", "frozen weights"),
    "saved for backward": ("saved activations", "relu masks", "pool indices"),
    "activations": ("activations", "images"),
    "errors": ("errors",),
    "gradients": ("gradients",),
}
"""Roles of tensors (hwmodel.lifetimes) that the memory chart draws as one area; others are working buffers."""
FILTER, UNCERTAIN, BUFFERS = "filter network", "uncertain instances", "working buffers"


def brief(value: Any) -> Any:
    """`value` with at most DIGITS significant digits, if it is a fractional number."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def columns(rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> dict[str, list[Any]]:
    """The named values of all rows, column by column; names that no row has a value for are left out."""
    found = {name: [brief(row.get(name)) for row in rows] for name in names}
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


def charts(run: FinishedRun) -> list[Chart]:
    """All charts of a run, in the order of the page; those without data are left out."""
    rows = run.run.metrics()
    found = [accuracy(run, rows), *learning(rows), numerics(_health(run))]
    for bill in run.bills:
        found += [layers(bill), memory(run, bill)]
    return [chart for chart in found if chart is not None]


def _health(run: FinishedRun) -> list[Mapping[str, Any]]:
    return run.run.numbers().get("health", []) if (run.path / NUMBERS).exists() else []


def accuracy(run: FinishedRun, rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Test accuracy whenever it was measured, the run's result last, beside dense float32 training if that was done."""
    if run.result["accuracy"] is None or not rows:
        return None
    # a row repeats the accuracy measured last
    points = [after for row, after in itertools.pairwise(rows) if row["accuracy"] != after["accuracy"]]
    points = [*points, {**rows[-1], "accuracy": run.result["accuracy"]}]
    if len(points) == 1 and run.baseline is None:  # the headline says it
        return None
    chart = _lines(points, "Accuracy", "Test accuracy, measured after each pass over the data.", ["accuracy"], "share")
    dense = run.baseline
    if chart is not None and dense is not None:
        chart["reference"] = {"name": "dense float32", "value": dense["accuracy"]}
    return chart


def learning(rows: Sequence[Mapping[str, Any]]) -> list[Chart | None]:
    """Loss over the energy spent, and what the filter did, from the rows of metrics."""
    return [
        _lines(rows, "Loss", "Mean training loss of the kept instances; bold: its running mean.", ["loss"], "log"),
        _lines(
            rows, "Filter: shares",
            "Shares of the stream that are kept, uncertain, truly of high loss. Recall: the share of those of high "
            "loss that is kept. Precision: the share of those kept that is of high loss. Bold: running means.",
            ["kept_share", "uncertain_share", "true_high", "precision", "recall"], "share",
        ),
        _lines(rows, "Filter: loss threshold", "An instance above it is of high loss.", ["threshold"], "linear"),
    ]  # fmt: skip


def _lines(rows: Sequence[Mapping[str, Any]], title: str, note: str, series: Sequence[str], scale: str) -> Chart | None:
    there = columns(rows, series)
    flat = all(len(set(values)) == 1 for values in there.values())
    if not there or (flat and len(series) > 1):  # nothing was filtered: two flat lines tell nothing
        return None
    axes = columns(rows, ["energy_j", "step"])
    return {"kind": "lines", "title": title, "note": note, "columns": axes | there, "x": list(axes), "scale": scale}


def layers(bill: Mapping[str, Any]) -> Chart:
    """Energy by layer and phase."""
    rows = [
        {**row, "layer": f"filter {row['layer']}" if row["phase"].startswith("filter") else row["layer"]}
        for row in bill["by_layer"]
        if row["energy_j"] > 0
    ]
    return {
        "kind": "layers",
        "title": f"Energy by layer and phase on {bill['device']}",
        "note": "Energy of the whole run; the filter network's layers are bars of their own.",
        "columns": columns(rows, ["layer", "kind", "phase", "macs", "cycles", "energy_j"]),
        "phases": list(REPORT_PHASES),
    }


def memory(run: FinishedRun, bill: Mapping[str, Any]) -> Chart | None:
    """Memory while each pass of the largest step runs, and the device's limit."""
    if bill["peak_ram_bytes"] is None:
        return None
    record = run.record
    held = pricing.memory(record.trace, devices.load(bill["device"]), record.schedule, record.filter_schedule)
    groups: dict[str, list[int]] = {}
    for i, moment in enumerate(held.timeline):
        for role, n_bytes in moment.by_role.items():
            groups.setdefault(group(role), [0] * len(held.timeline))[i] += n_bytes
    return {
        "kind": "memory",
        "title": f"Memory of one training step on {bill['device']}",
        "note": f"The largest step of the run, pass by pass; its peak is at {held.peak_moment}.",
        "columns": {"pass": [moment.name for moment in held.timeline]}
        | {name: groups[name] for name in (*ROLE_GROUPS, BUFFERS, UNCERTAIN, FILTER) if name in groups},
        "limit_bytes": held.ram_limit_bytes,
        "peak_bytes": held.peak_ram_bytes,
        "peak_index": max(range(len(held.timeline)), key=lambda i: held.timeline[i].n_bytes),
    }


def group(role: str) -> str:
    """The area of the memory chart that tensors of a role belong to."""
    if role.startswith("filter "):
        return FILTER
    if role.startswith("uncertain "):
        return UNCERTAIN
    return next((group for group, roles in ROLE_GROUPS.items() if role in roles), BUFFERS)


def numerics(rows: Sequence[Mapping[str, Any]]) -> Chart | None:
    """What each quantization point clips, flushes to zero, and how its noise compares with its signal."""
    if not rows:
        return None
    return {
        "kind": "numerics",
        "title": "Numerics health",
        "note": "Values clipped at the format's limit, values flushed to zero, and the rounding's signal to noise.",
        "columns": columns(rows, ["layer", "role", "bits", "saturated", "zeroed", "sqnr_db"]),
        "measures": {"sqnr_db": "signal to noise, dB", "saturated": "saturated", "zeroed": "flushed to zero"},
    }
