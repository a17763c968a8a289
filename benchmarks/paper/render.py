"""Finished runs as a Markdown table: mean and standard deviation, paired differences with their intervals."""

from __future__ import annotations

import itertools
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import click
from scipy import stats

from benchmarks.paper.rows import Table
from qtrain.experiment import load

LEVEL = 0.9
"""Of the intervals of paired mean differences (Student's t)."""

HEAD = (
    "| row | seeds | accuracy % | minus {reference}, points | MACs saved % | by the paper's rule % | "
    "bit operations saved % | energy saved % | trained on, uncertain % | min |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


DECIDING = (
    "seed", "model", "input_shape", "n_classes", "init", "recipe", "data", "stream", "numbers", "layers", "filter",
    "prune", "optimizer", "train",
)  # fmt: skip
"""Parts of an experiment that make a row: not where it ran, nor what other recipes would take."""

Runs = dict[int, dict[str, Any]]
"""Results of one row by seed."""


def finished(table: Table, where: Path, row: str, epochs: int) -> Runs:
    """What is there of the row as it is described today, each with the commit and the code that it ran."""
    found: Runs = {}
    for path in where.glob(f"{row}-*/result.json"):
        seed = path.parent.name.removeprefix(f"{row}-")
        if not seed.isdigit():
            continue
        ran = load(path.parent / "experiment.toml")
        asked = table.experiment(row, int(seed), epochs).with_options({"data.dir": ran.data.dir})
        if any(getattr(ran, part) != getattr(asked, part) for part in DECIDING):
            click.echo(f"{path.parent}: another experiment than the row; left out", err=True)
            continue
        env = json.loads((path.parent / "env.json").read_text())
        found[int(seed)] = json.loads(path.read_text()) | {"code": f"{env['commit'][:7]} ({env['code_version']})"}
    return dict(sorted(found.items()))


def spread(values: list[float], digits: int = 2) -> str:
    """Mean and standard deviation over runs."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def interval(pairs: list[float]) -> str:
    """Mean of paired differences and the LEVEL interval of that mean."""
    mean, n = statistics.mean(pairs), len(pairs)
    if n < 2:
        return f"{mean:+.2f}"
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * statistics.stdev(pairs) / n**0.5
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def counted(n: int, what: str = "seed") -> str:
    return f"{n} {what}{'s' if n != 1 else ''}"


def differences(runs: Runs, others: Runs) -> list[float]:
    """Accuracy of `runs` minus that of `others`, points, over the seeds that both have."""
    return [100 * (runs[seed]["accuracy"] - others[seed]["accuracy"]) for seed in runs if seed in others]


def line(name: str, runs: Runs, reference: Runs, same: bool) -> str:
    """One row of the table."""
    results = list(runs.values())
    pairs = differences(runs, reference)

    def share_of(what: str) -> float:
        """Percent; what was kept of those that do not know what went back."""
        return statistics.mean(100 * i.get(what, i["kept"]) / i["seen"] for i in (r["instances"] for r in results))

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
        f"{share_of('backward'):.0f}, {share_of('uncertain'):.0f}",
        f"{statistics.mean(r['wall_time_s'] for r in results) / 60:.1f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def markdown(table: Table, where: Path, epochs: int, seeds: int) -> str:
    """The whole page: settings, table, and below it per layer what pruning left."""
    rows = {name: finished(table, where, name, epochs) for name in table.rows}
    reference = rows[table.reference]
    codes = sorted({r["code"] for runs in rows.values() for r in runs.values()})
    common = ", ".join(f"{key} {value}" for key, value in table.common.items())
    lines = [
        f"# {table.title}, {counted(epochs, 'epoch')}",
        "",
        f"Test set, last epoch; mean ± standard deviation over seeds; differences paired by seed with {LEVEL:.0%} "
        f"intervals (Student's t); energy on {', '.join(table.common['run.devices'])}; wall time is of a "
        f"shared machine. The paper trains {counted(table.paper_epochs, 'epoch')}. Settings: {common}; rows: "
        f"benchmarks/paper/rows.py. Commits (code versions): {', '.join(codes)}.",
        "",
        HEAD.format(reference=table.reference),
    ]
    for name, runs in rows.items():
        if runs:
            lines.append(line(name, runs, reference, name == table.reference))
        else:
            command = f"`python -m benchmarks.paper train {table.name} {name} --epochs {epochs} --seeds {seeds}`"
            lines.append(f"| {name} | 0 | {command} |" + " |" * 7)
    return "\n".join([*lines, *beside_curve(rows, table.curve, table.beside), *layers(rows), *warned(rows)])


def beside_curve(rows: dict[str, Runs], curve: tuple[str, ...], points: tuple[str, ...]) -> list[str]:
    """How far each of `points` lies above the line through the rows of `curve`, at its own share of MACs saved.

    The line's accuracy is taken seed by seed, linear between the two rows whose mean shares lie around the point's.
    """

    def share(name: str) -> float:
        return statistics.mean(r["saved"]["macs"] for r in rows[name].values())

    ran = sorted((name for name in curve if rows[name]), key=share)
    lines = []
    for point in points:
        runs = rows[point]
        for low, high in itertools.pairwise(ran):
            seeds = [seed for seed in runs if seed in rows[low] and seed in rows[high]]
            if not seeds or not share(low) <= share(point) <= share(high):
                continue
            t = (share(point) - share(low)) / (share(high) - share(low))
            above = [
                100 * (runs[s]["accuracy"] - (1 - t) * rows[low][s]["accuracy"] - t * rows[high][s]["accuracy"])
                for s in seeds
            ]
            error = f", standard error {statistics.stdev(above) / len(above) ** 0.5:.2f}" if len(above) > 1 else ""
            lines.append(
                f"- {point} ({100 * share(point):.1f} % of MACs saved) minus the line through {low} and {high} there: "
                f"{statistics.mean(above):+.2f} points{error}, {counted(len(above))}"
            )
    return ["", *lines] if lines else []


def layers(rows: dict[str, Runs]) -> list[str]:
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


def warned(rows: dict[str, Runs]) -> list[str]:
    """What the runs warned of."""
    lines = []
    for name, runs in rows.items():
        said = Counter(line for r in runs.values() for line in r["warnings"])
        lines += [f"- {name}, {n} of {len(runs)} runs warned: {line}" for line, n in said.items()]
    return ["", *lines] if lines else []
