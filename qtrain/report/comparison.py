"""Settings side by side: one row a setting and device, over its seeds, the Pareto front marked."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtrain.report.pareto import Point, front
from qtrain.report.runs import FinishedRun
from qtrain.report.settings import SEED, differences, label


@dataclass(frozen=True)
class Row:
    """A setting on a device: means over its seeds, `_std` the sample standard deviation (None of one seed).

    Energy and time are those of the whole run, its steps (mini-batches of the stream, learned from or not), its updates
    (of the weights; the filter's work in between counts) or its instances. `pareto`: no other setting that
    fits the device is at least as good there in accuracy (in loss, where there is none), energy and RAM, and better in
    one of them; of settings that do not fit only where none does.
    """

    setting: str
    values: dict[str, Any]
    seeds: tuple[int, ...]
    runs: tuple[Path, ...]
    accuracy: float | None
    accuracy_std: float | None
    loss: float
    loss_std: float | None
    saved_macs: float
    saved_bitops: float
    kept_share: float
    device: str
    kernels: str | None
    energy_j: float
    energy_j_std: float | None
    step_energy_j: float
    update_energy_j: float
    instance_energy_j: float
    time_s: float
    instance_time_s: float
    peak_ram_bytes: int
    ram_limit_bytes: int | None
    flash_bytes: int
    fits: bool | None
    saved_energy_vs_fp32: float | None
    saved_energy_vs_same_bits: float | None
    basis: str
    pareto: bool = False

    @property
    def objectives(self) -> Point:
        """What the Pareto front minimizes: error (or loss), energy in joules, peak RAM in bytes."""
        return (self.loss if self.accuracy is None else -self.accuracy, self.energy_j, float(self.peak_ram_bytes))

    def to_json(self) -> dict[str, Any]:
        """Plain data, units in the names."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def compare(runs: Sequence[FinishedRun]) -> list[Row]:
    """The rows of finished runs, all priced on the same devices, settings in the order of their first run."""
    settings: dict[str, list[FinishedRun]] = {}
    for run in runs:
        settings.setdefault(run.experiment.with_options({SEED: 0}).fingerprint, []).append(run)
    groups = [sorted(group, key=lambda run: run.experiment.seed) for group in settings.values()]
    values = differences([group[0].experiment for group in groups])
    rows = [_row(group, own, i) for group, own in zip(groups, values, strict=True) for i in range(len(group[0].bills))]
    marked: dict[int, bool] = {}
    for device in dict.fromkeys(row.device for row in rows):
        own = [i for i, row in enumerate(rows) if row.device == device]
        there = [i for i in own if rows[i].fits is not False] or own  # a setting that does not fit is no choice
        marked |= dict(zip(there, front([rows[i].objectives for i in there]), strict=True))
    return [dataclasses.replace(row, pareto=marked.get(i, False)) for i, row in enumerate(rows)]


def _row(group: Sequence[FinishedRun], values: dict[str, Any], i: int) -> Row:
    results, bills = [run.result for run in group], [run.bills[i] for run in group]
    accuracies = [result["accuracy"] for result in results]
    known = None not in accuracies
    fits = [bill["fits"] for bill in bills]
    return Row(
        setting=label(values),
        values=values,
        seeds=tuple(run.experiment.seed for run in group),
        runs=tuple(run.path for run in group),
        accuracy=_mean(accuracies) if known else None,
        accuracy_std=_std(accuracies) if known else None,
        loss=_mean(result["loss"] for result in results),
        loss_std=_std(result["loss"] for result in results),
        saved_macs=_mean(result["saved"]["macs"] for result in results),
        saved_bitops=_mean(result["saved"]["bitops"] for result in results),
        kept_share=_mean(r["instances"]["kept"] / max(r["instances"]["seen"], 1) for r in results),
        device=bills[0]["device"],
        kernels=bills[0]["kernels"],
        energy_j=_mean(bill["energy_j"] for bill in bills),
        energy_j_std=_std(bill["energy_j"] for bill in bills),
        step_energy_j=_mean(bill["energy_j"] / max(bill["n_steps"], 1) for bill in bills),
        update_energy_j=_mean(
            bill["energy_j"] / max(result.get("n_updates", result["n_steps"]), 1)
            for bill, result in zip(bills, results, strict=True)
        ),
        instance_energy_j=_mean(bill["energy_j"] / max(bill["n_instances"], 1) for bill in bills),
        time_s=_mean(bill["time_s"] for bill in bills),
        instance_time_s=_mean(bill["time_s"] / max(bill["n_instances"], 1) for bill in bills),
        peak_ram_bytes=max(bill["peak_ram_bytes"] for bill in bills),
        ram_limit_bytes=bills[0]["ram_limit_bytes"],
        flash_bytes=max(bill["flash_bytes"] for bill in bills),
        fits=None if None in fits else all(fits),
        saved_energy_vs_fp32=_mean(bill["saved_energy_vs_fp32"] for bill in bills),
        saved_energy_vs_same_bits=_mean(bill["saved_energy_vs_same_bits"] for bill in bills),
        basis=bills[0]["basis"],
    )


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _std(values: Iterable[float]) -> float | None:
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 else None
