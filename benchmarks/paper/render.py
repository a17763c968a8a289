"""Finished runs as a Markdown table: mean and standard deviation, paired differences with their intervals."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.paper.rows import Table

LEVEL = 0.9
"""Of the intervals of paired mean differences (Student's t)."""

HEAD = (
    "| row | seeds | accuracy % | minus {reference}, points | MACs saved % | by the paper's rule % | "
    "bit operations saved % | energy saved % | kept, uncertain % | min |\n|---|---|---|---|---|---|---|---|---|---|"
)


def finished(where: Path, row: str) -> dict[int, dict[str, Any]]:
    """Results of the row by seed, each with its code version."""
    found: dict[int, dict[str, Any]] = {}
    for path in where.glob(f"{row}-*/result.json"):
        seed = path.parent.name.removeprefix(f"{row}-")
        if seed.isdigit():
            env = json.loads((path.parent / "env.json").read_text())
            found[int(seed)] = json.loads(path.read_text()) | {"code": env["code_version"]}
    return dict(sorted(found.items()))


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation over runs."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def interval(differences: list[float]) -> str:
    """Mean of paired differences and the LEVEL interval of that mean."""
    mean, n = statistics.mean(differences), len(differences)
    if n < 2:
        return f"{mean:+.2f}"
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * statistics.stdev(differences) / n**0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def line(name: str, runs: dict[int, dict[str, Any]], reference: dict[int, dict[str, Any]], same: bool) -> str:
    """One row of the table."""
    results = list(runs.values())
    pairs = [100 * (runs[s]["accuracy"] - reference[s]["accuracy"]) for s in runs if s in reference]
    bills = zip(*(r["bills"] for r in results), strict=True)
    cells = [
        name,
        str(len(results)),
        spread([100 * r["accuracy"] for r in results]),
        "" if same or not pairs else interval(pairs),
        spread([100 * r["saved"]["macs"] for r in results], 1),
        spread([100 * (1 - r["paper_accounting"]["remaining"]) for r in results], 1),
        spread([100 * r["saved"]["bitops"] for r in results], 1),
        ", ".join(spread([100 * b["saved_energy_vs_fp32"] for b in device], 1) for device in bills),
        ", ".join(f"{100 * sum(r['instances'][k] / r['instances']['seen'] for r in results) / len(results):.0f}"
                  for k in ("kept", "uncertain")),
        f"{statistics.mean(r['wall_time_s'] for r in results) / 60:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def markdown(table: Table, where: Path, epochs: int, seeds: int) -> str:
    """The whole page: settings, table, and below it per layer what pruning left."""
    rows = {name: finished(where, name) for name in table.rows}
    reference = rows[table.reference]
    codes = sorted({r["code"] for runs in rows.values() for r in runs.values()})
    common = ", ".join(f"{key} {value}" for key, value in table.common.items())
    lines = [
        f"# {table.title}, {epochs} epoch{'s' if epochs > 1 else ''}",
        "",
        f"Test set, last epoch; mean ± standard deviation over seeds; differences paired by seed with {LEVEL:.0%} "
        f"intervals (Student's t); energy on {', '.join(table.common['run.devices'])}; wall time is of a "
        f"shared machine. The paper trains {table.paper_epochs} epochs. Settings: {common}; rows: "
        f"benchmarks/paper/rows.py. Code versions (env.json): {', '.join(codes)}.",
        "",
        HEAD.format(reference=table.reference),
    ]
    for name, runs in rows.items():
        if runs:
            lines.append(line(name, runs, reference, name == table.reference))
        else:
            command = f"`python -m benchmarks.paper train {table.name} {name} --epochs {epochs} --seeds {seeds}`"
            lines.append(f"| {name} | 0 | {command} |" + " |" * 7)
    return "\n".join([*lines, *layers(rows)])


def layers(rows: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    """Density and never-kept channels of each pruned layer, of the rows that prune."""
    lines = []
    for name, runs in rows.items():
        pruned = [r["pruning"] for r in runs.values() if r["pruning"]]
        for key, title in (("density", "density left"), ("never_kept", "channels never kept")):
            tables = [p[key] for p in pruned if p.get(key)]
            if tables:
                means = {la: sum(t[la] for t in tables) / len(tables) for la in tables[0]}
                text = ", ".join(f"{la} {100 * value:.0f}" for la, value in means.items())
                lines.append(f"- {name}, {title} by layer, %: {text}")
    return ["", *lines] if lines else []
