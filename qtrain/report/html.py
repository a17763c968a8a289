"""The page's static parts: headline, comparison, settings and devices as HTML; every value is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hwmodel import devices as profiles
from qtrain.console import bill_lines, kib, percent, si
from qtrain.experiment import Experiment, options
from qtrain.report.comparison import Row
from qtrain.report.headline import headline, micro
from qtrain.report.runs import FinishedRun
from qtrain.report.settings import value
from qtrain.report.table import quality

escape = html.escape


def table(header: Sequence[str], rows: Iterable[Sequence[str]], classes: str = "") -> str:
    """A table of escaped cells; cells may hold HTML of their own."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    inner = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{classes}">{inner}</table></div>'


def figure(name: str) -> str:
    """The place of a chart: its title, note and data table are put there by the script."""
    return f'<figure class="chart" data-chart="{name}"></figure>'


def subtitle(runs: Sequence[FinishedRun]) -> str:
    """How many runs, on what, when, by which code."""
    commits = dict.fromkeys(str(run.run.environment().get("commit", ""))[:10] for run in runs)
    commit = ", ".join(text for text in commits if text)
    seeds = sorted({run.experiment.seed for run in runs})
    parts = [
        f"{len(runs)} run{'s' if len(runs) > 1 else ''}",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds[:8]))}{' …' if len(seeds) > 8 else ''}",
        f"priced on {', '.join(bill['device'] for bill in runs[0].bills)}",
        f"commit {commit}" if commit else "",
        datetime.now(UTC).strftime("%d %B %Y"),
    ]
    return escape(" · ".join(part for part in parts if part))


def overview(rows: Sequence[Row], anchors: Mapping[Any, str], charts: Sequence[str]) -> str:
    """The comparison: a front a device, and all settings in a table that can be sorted."""
    header = ["", "setting", "seeds", "accuracy", "MACs saved", "bit operations saved", "energy saved", "energy",
              "latency", "peak RAM", "fits"]  # fmt: skip
    several = len({row.device for row in rows}) > 1
    body = []
    for row in sorted(rows, key=lambda row: row.objectives[0]):
        links = " ".join(
            f'<a href="#{anchors[path]}">{seed}</a>' for path, seed in zip(row.runs, row.seeds, strict=True)
        )
        fits = {True: "yes", False: '<span class="bad">no</span>', None: "–"}[row.fits]
        cells = [
            '<span title="on the Pareto front">●</span>' if row.pareto else "", escape(row.setting), links,
            quality(row), percent(row.saved_macs), percent(row.saved_bitops), percent(row.saved_energy_vs_fp32),
            micro(si(row.energy_j, "J")), micro(si(row.instance_time_s, "s")), kib(row.peak_ram_bytes), fits,
        ]  # fmt: skip
        body.append([escape(row.device), *cells] if several else cells)
    if several:
        header = ["device", *header]
    return (
        '<section id="comparison"><h2>Comparison</h2>'
        f"{''.join(map(figure, charts))}"
        "<h3>All settings</h3><p>● on the Pareto front: no other setting that fits is as good in accuracy, energy and "
        "RAM. Energy: of the run; latency: of an instance; saved: against dense float32 training on the same stream. "
        "A heading sorts; a seed leads to its run.</p>"
        f"{table(header, body, 'sortable')}</section>"
    )


def section(run: FinishedRun, anchor: str, title: str, charts: Sequence[str], is_open: bool) -> str:
    """A run: headline, charts, what its bills say, and everything needed to repeat it."""
    figures = headline(run)
    cards = "".join(
        f'<div class="card"><dt>{escape(f.name)}</dt><dd class="{"bad" if f.bad else ""}">{escape(f.value)}</dd>'
        f"<p>{escape(f.note)}</p></div>"
        for f in figures
    )
    warnings = "".join(f'<p class="warning">{escape(line)}</p>' for line in run.result.get("warnings", ()))
    missing = (
        "" if charts else "<p>Its charts are left out to keep this page small; make a report of this run alone.</p>"
    )
    summary = f"<h2>{escape(title)}</h2>"
    if not is_open:
        summary += f"<p>{escape(figures[0].value)} · {escape(micro(si(run.bills[0]['energy_j'], 'J')))}</p>"
    return (
        f'<details class="run" id="{anchor}"{" open" if is_open else ""}><summary>{summary}</summary>'
        f'<dl class="cards">{cards}</dl>{warnings}{missing}<div class="charts">{"".join(map(figure, charts))}</div>'
        f"{bills(run)}{settings(run)}</details>"
    )


def bills(run: FinishedRun) -> str:
    """A line a device: energy, time, memory, savings and what the numbers rest on."""
    header = ["device", "energy", "time", "latency", "peak RAM", "fits", "energy saved"]
    rows, notes = [], []
    for bill in run.bills:
        fits = {True: "yes", False: '<span class="bad">no</span>', None: "–"}[bill["fits"]]
        rows.append([
            escape(bill["device"]), micro(si(bill["energy_j"], "J")), micro(si(bill["time_s"], "s")),
            micro(si(bill["time_s"] / max(bill["n_instances"], 1), "s")), kib(bill["peak_ram_bytes"]), fits,
            percent(bill["saved_energy_vs_fp32"]),
        ])  # fmt: skip
        lines = "; ".join([*bill_lines(bill)[2:], *bill.get("notes", ())])
        notes.append(f"<p><strong>{escape(bill['device'])}</strong>: {escape(lines)}</p>")
    return f"<h3>Devices</h3>{table(header, rows, 'bills')}{''.join(notes)}"


def settings(run: FinishedRun) -> str:
    """Every option with its value, those changed from the default marked; seed, versions, commit, command."""
    default = Experiment()
    rows, changed = [], []
    for option in options():
        own = value(run.experiment, option.key)
        text = escape(_shown(own))
        if own != value(default, option.key):
            changed.append(f"<code>{escape(option.key)} = {text}</code>")
            text = f"<strong>{text}</strong>"
        rows.append([f"<code>{escape(option.key)}</code>", text, escape(option.help)])
    rows += [
        [f'<code>layers."{escape(r.glob)}"</code>', escape(str(dict(r.values))), ""] for r in run.experiment.layers
    ]
    environment = run.run.environment()
    about = {
        "folder": str(run.path), "run id": run.run.id, "seed": run.experiment.seed,
        "code version": environment.get("code_version"), "commit": environment.get("commit"),
        "created": environment.get("created_utc"), "command": " ".join(map(str, environment.get("command", ()))),
        "machine": f"{environment.get('platform')}, {environment.get('n_cpus')} cores",
        "versions": ", ".join(f"{name} {v}" for name, v in environment.get("versions", {}).items() if v),
    }  # fmt: skip
    return (
        f"<h3>Settings</h3><p>Changed from the defaults: {', '.join(changed) or 'nothing'}</p>"
        f"<details><summary>All settings</summary>{table(['option', 'value', 'meaning'], rows)}</details>"
        "<details class=about><summary>How it was made</summary>"
        f"{table(['', ''], [[escape(k), escape(str(v or '–'))] for k, v in about.items()])}</details>"
    )


def _shown(item: Any) -> str:
    if isinstance(item, tuple):
        return ", ".join(map(str, item)) or "–"
    return f"{item:g}" if isinstance(item, float) else str(item) or "–"


def devices(runs: Sequence[FinishedRun]) -> str:
    """Every constant of the devices priced on: value, unit, basis and source."""
    parts = ['<section id="devices"><h2>What the prices rest on</h2>']
    for name in dict.fromkeys(bill["device"] for run in runs for bill in run.bills):
        device = profiles.load(name)
        rows = [
            [f"<code>{escape(key)}</code>", f"{c.value:g}", escape(c.unit), escape(c.basis), escape(c.source)]
            for key, c in device.constants.items()
        ]
        parts.append(
            f"<details><summary>{escape(name)}: {escape(device.title)} ({escape(device.basis)})</summary>"
            f"{table(['constant', 'value', 'unit', 'basis', 'source'], rows)}</details>"
        )
    return "".join(parts) + "</section>"
