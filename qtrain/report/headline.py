"""A run in a few numbers, each beside what it is measured against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtrain.console import kib, percent, si
from qtrain.report.runs import FinishedRun


@dataclass(frozen=True)
class Figure:
    """A number of the headline: what it is, its value, what to compare it with, and whether it is a failure."""

    name: str
    value: str
    note: str
    bad: bool = False


def headline(run: FinishedRun) -> list[Figure]:
    """Accuracy, instances, MACs and bit operations; then energy, latency and memory on the first device."""
    result, bill = run.result, run.bills[0]
    n = result["instances"]
    trained_on = n.get("backward", n["kept"])  # runs of earlier versions do not know
    return [
        _quality(run),
        Figure(
            "instances trained on", percent(trained_on / max(n["seen"], 1)),
            f"{trained_on:,} of {n['seen']:,} seen; {n['uncertain']:,} more forwarded for their loss",
        ),
        Figure(
            "MACs", micro(si(result["macs"]["total"])),
            f"{percent(result['saved']['macs'])} less than dense training, {micro(si(result['macs']['dense_fp32']))}",
        ),
        Figure(
            "bit operations saved", percent(result["saved"]["bitops"]),
            f"of dense float32; {percent(result['saved_vs_same_bits']['bitops'])} of dense at the same bits",
        ),
        _energy(bill),
        Figure(
            "per instance", micro(si(bill["time_s"] / max(bill["n_instances"], 1), "s")),
            f"{micro(si(bill['energy_j'] / max(bill['n_instances'], 1), 'J'))} on {bill['device']}",
        ),
        _memory(bill),
    ]  # fmt: skip


def _quality(run: FinishedRun) -> Figure:
    result, dense = run.result, run.baseline
    if result["accuracy"] is None:
        note = f"dense float32: {dense['loss']:.4g}" if dense else f"after {result['n_steps']:,} steps"
        return Figure("test loss", f"{result['loss']:.4g}", note)
    note = f"after {result['n_steps']:,} steps"
    if result.get("accuracy_before") is not None:
        note = f"before: {percent(result['accuracy_before'])}"
    if dense:
        points = 100 * (result["accuracy"] - dense["accuracy"])
        note = f"dense float32 on the same stream: {percent(dense['accuracy'])} ({points:+.2f} points)"
    return Figure("test accuracy", percent(result["accuracy"]), note)


def _energy(bill: Mapping[str, Any]) -> Figure:
    saved = bill["saved_energy_vs_fp32"]
    note = f"on {bill['device']}"
    if saved is not None and saved < 1:
        dense_j = bill["energy_j"] / (1 - saved)
        note = (
            f"on {bill['device']}; {percent(saved)} less than dense float32, {micro(si(dense_j, 'J'))}; "
            f"{percent(bill['saved_energy_vs_same_bits'])} less than dense at the same bits"
        )
    return Figure("energy of the run", micro(si(bill["energy_j"], "J")), note)


def _memory(bill: Mapping[str, Any]) -> Figure:
    if bill["peak_ram_bytes"] is None or bill["ram_limit_bytes"] is None:
        return Figure("peak RAM", kib(bill["peak_ram_bytes"]), f"on {bill['device']}")
    verdict = "fits" if bill["fits"] else "does not fit"
    note = f"{verdict} {bill['device']}: {kib(bill['ram_limit_bytes'])}"
    return Figure("peak RAM", kib(bill["peak_ram_bytes"]), note, bad=not bill["fits"])


def micro(text: str) -> str:
    """Text of `si` with a micro sign, which a page can show."""
    return text.replace(" u", " µ")
