"""Several runs at a glance: the front of accuracy and cost, a point a setting, linked to the runs' sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtrain.report.charts import Chart, brief
from qtrain.report.comparison import Row

COLUMNS = ("setting", "accuracy", "accuracy_std", "loss", "energy_j", "instance_energy_j", "instance_time_s",
           "peak_ram_bytes", "saved_macs", "saved_bitops", "saved_energy_vs_fp32", "kept_share")  # fmt: skip


def fronts(rows: Sequence[Row], anchors: dict[Any, str]) -> list[Chart]:
    """A chart a device; `anchors` are the names of the runs' sections by folder."""
    return [
        _front([row for row in rows if row.device == device], anchors)
        for device in dict.fromkeys(row.device for row in rows)
    ]


def _front(rows: Sequence[Row], anchors: dict[Any, str]) -> Chart:
    quality = "accuracy" if all(row.accuracy is not None for row in rows) else "loss"
    table = {name: [brief(getattr(row, name)) for row in rows] for name in COLUMNS}
    return {
        "kind": "front",
        "title": f"{quality.capitalize()} and energy on {rows[0].device}",
        "note": "A point a setting, its mean over the seeds; larger ones take more RAM, filled ones are on the Pareto "
        "front of accuracy, energy and RAM. The line joins the front of accuracy and energy alone. Click: the run.",
        "columns": {name: values for name, values in table.items() if any(value is not None for value in values)},
        "quality": quality,
        "pareto": [row.pareto for row in rows],
        "fits": [row.fits for row in rows],
        "usable": [row.fits is not False or not any(other.fits for other in rows) for row in rows],
        "n_seeds": [len(row.seeds) for row in rows],
        "links": [anchors[row.runs[0]] for row in rows],
    }
