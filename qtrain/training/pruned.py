"""What pruning left of each layer over a run, for its record."""

from __future__ import annotations

from typing import Any

from hwmodel.trace import Trace
from qtrain.pruners import Pruner


def pruning_report(pruner: Pruner, trace: Trace) -> dict[str, dict[str, float]]:
    """By layer: "density", the mean share of non-zero elements in the error maps that a thinning pruner left, and
    "never_kept", the share of channels that a channel pruner never kept. Empty without pruning."""
    report: dict[str, dict[str, float]] = {}
    if pruner.thins:
        sums: dict[str, list[float]] = {}
        for op, tally in trace:
            if op.payer == "main" and op.phase == "gradient" and op.layer.kind == "conv":
                total = sums.setdefault(op.layer.name, [0.0, 0.0])
                total[0] += tally.density_sum
                total[1] += tally.count
        report["density"] = {name: density / count for name, (density, count) in sums.items()}
    never_kept: Any = getattr(pruner, "never_kept", None)
    if never_kept is not None:
        report["never_kept"] = never_kept()
    return report
