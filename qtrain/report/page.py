"""The report: one HTML file that holds everything it shows, plotly.js too, and asks the network for nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.files import plain, write_atomic
from qtrain.report import html
from qtrain.report.charts import Chart, charts
from qtrain.report.comparison import compare
from qtrain.report.overview import fronts
from qtrain.report.runs import FinishedRun
from qtrain.report.settings import differences, label

MAX_CHART_BYTES = 8 << 20
"""Chart data a page may hold beside plotly.js (5 MB): runs beyond it keep their numbers and lose their charts."""


def build(runs: Sequence[FinishedRun]) -> str:
    """The page for finished runs, all with bills on the same devices, the best first.

    Raises QtrainError without runs or without plotly.
    """
    if not runs:
        raise QtrainError("a report needs a finished run")
    plotly, rows = _plotly(), compare(runs)
    by_path = {run.path: run for run in runs}
    first = [row for row in rows if row.device == rows[0].device]
    runs = [by_path[path] for row in sorted(first, key=lambda row: row.objectives[0]) for path in row.runs]
    anchors = {run.path: f"run-{i}" for i, run in enumerate(runs, 1)}
    labels = {run.path: text for run, text in zip(runs, _labels(runs), strict=True)}
    data: dict[str, Chart] = {}
    parts = []
    if len(runs) > 1:
        names = _add(data, "front", fronts(rows, anchors))
        parts.append(html.overview(rows, anchors, names))
    n_bytes = 0
    for run in runs:
        anchor, drawn = anchors[run.path], []
        if n_bytes < MAX_CHART_BYTES:
            drawn = charts(run)
            n_bytes += len(json.dumps(drawn))
        names = _add(data, anchor, drawn)
        parts.append(html.section(run, anchor, labels[run.path], names, is_open=len(runs) == 1))
    parts.append(html.devices(runs))
    fields = {
        "title": html.escape(_title(runs)),
        "subtitle": html.subtitle(runs),
        "style": _asset("page.css"),
        "body": "\n".join(parts),
        "data": _embedded(data),
        "plotly": plotly,
        "script": _asset("page.js"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], _asset("page.html"))


def write(runs: Sequence[FinishedRun], path: str | Path) -> None:
    """Write the page of finished runs to the file `path`."""
    write_atomic(Path(path), build(runs).encode())


def _add(data: dict[str, Chart], prefix: str, found: Sequence[Chart]) -> list[str]:
    names = [f"{prefix}-{i}" for i in range(len(found))]
    data.update(zip(names, found, strict=True))
    return names


def _labels(runs: Sequence[FinishedRun]) -> list[str]:
    if len(runs) == 1:
        return ["Results"]
    varied = differences([run.experiment for run in runs])
    seeds = len({run.experiment.seed for run in runs}) > 1
    return [
        label(values) + (f", seed {run.experiment.seed}" if seeds else "")
        for values, run in zip(varied, runs, strict=True)
    ]


def _title(runs: Sequence[FinishedRun]) -> str:
    what = dict.fromkeys(f"{run.experiment.model} on {run.experiment.data.name}" for run in runs)
    return ", ".join(what) if len(what) <= 3 else f"{len(runs)} runs"


def _embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(plain(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (resources.files("qtrain.report") / "web" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise QtrainError("qtrain report needs plotly; install it with: pip install 'qtrain[report]'") from None
    return str(get_plotlyjs())
