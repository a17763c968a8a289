"""What a person sees in a terminal: the progress of a run, and tables of results, bills and devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from hwmodel.device_schema import ABSENT

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))


def si(value: float | None, unit: str = "") -> str:
    """`value` with three digits and an SI prefix: si(0.00123, "J") = "1.23 mJ"; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return f"0 {unit}".rstrip()
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s), _PREFIXES[-1])
    return f"{value / scale:.3g} {prefix}{unit}".rstrip()


def percent(share: float | None) -> str:
    """A share as a percentage; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f} %"


def kib(n_bytes: float | None) -> str:
    """Bytes in KiB, the unit of microcontrollers' memories; a dash for None."""
    return "-" if n_bytes is None else f"{n_bytes / 1024:,.1f} KiB"


def say(console: Console, line: str) -> None:
    """Print a sentence: between its words broken to a terminal's width, as one line into a file or a pipe."""
    console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)


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
    rows += [
        ("instances seen", f"{seen:,}"),
        ("kept", f"{kept:,}  ({percent(kept / max(seen, 1))})"),
        ("uncertain", f"{uncertain:,}  ({percent(uncertain / max(seen, 1))})"),
        ("MACs", f"{si(result['macs']['total'])}  (dense: {si(result['macs']['dense_fp32'])})"),
        ("MACs saved", percent(result["saved"]["macs"])),
        ("bit operations saved", f"{percent(result['saved']['bitops'])} of dense float32, "
                                 f"{percent(result['saved_vs_same_bits']['bitops'])} of dense at the same bits"),
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


def show_bills(console: Console, bills: list[dict[str, Any]]) -> None:
    """One table a device: phases, then totals, memory, and what the numbers rest on."""
    for bill in bills:
        console.print(_phases(bill))
        for line in bill_lines(bill):
            say(console, line)


def _phases(bill: dict[str, Any]) -> Table:
    """Phases of a bill; a run's also as a share of the same phase of dense training, with the dense totals below."""
    table = Table(title=f"{bill['device']}: one {bill['scope']}", title_justify="left")
    dense = bill.get("dense", {})
    names = {"fp32": "float32", "same_bits": "same bits"}
    for name in ("phase", "MACs", "cycles", "energy", *(f"of dense {names[key]}" for key in dense)):
        table.add_column(name, justify="left" if name == "phase" else "right", no_wrap=name == "phase")
    for phase, own in bill["by_phase"].items():
        others = [d["by_phase"][phase]["energy_j"] for d in dense.values()]
        if own["cycles"] or own["macs"] or any(others):
            shares = [percent(own["energy_j"] / other) if other else "-" for other in others]
            table.add_row(phase, *_cells(own), *shares)
    table.add_section()
    table.add_row("total", *_cells(bill), *(percent(bill["energy_j"] / d["energy_j"]) for d in dense.values()))
    for key, row in dense.items():
        table.add_row(f"dense {names[key]}", *_cells(row))
    return table


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    return si(row["macs"]), si(row["cycles"]), si(row["energy_j"], "J")


BATTERY_LASTS = {"step": "updates", "inference": "inferences"}


def bill_lines(bill: dict[str, Any]) -> list[str]:
    """Latency and energy per instance, savings, memory and basis of a bill, a sentence a line."""
    n = max(bill["n_instances"], 1)
    lines = [f"per instance: {si(bill['time_s'] / n, 's')}, {si(bill['energy_j'] / n, 'J')}"]
    if bill.get("cr2032_lasts") and bill["scope"] in BATTERY_LASTS:
        lines[0] += f"; a CR2032 lasts {bill['cr2032_lasts']:,.0f} {BATTERY_LASTS[bill['scope']]}"
    if bill["saved_energy_vs_fp32"] is not None:
        lines.append(
            f"energy saved: {percent(bill['saved_energy_vs_fp32'])} of dense float32, "
            f"{percent(bill['saved_energy_vs_same_bits'])} of dense at the same bits"
        )
    if bill["fits"] is not None:
        spare = bill["ram_left_bytes"]
        verdict = "fits" if bill["fits"] else "does not fit"
        margin = f"{kib(spare)} RAM left" if spare >= 0 else f"{kib(-spare)} RAM too little"
        lines.append(f"peak RAM: {kib(bill['peak_ram_bytes'])}; {verdict}: {margin}")
        flash, most = bill["flash_bytes"], bill.get("flash_limit_bytes")
        if most is not None and flash > most:
            lines.append(f"flash: {kib(flash)}; does not fit: {kib(flash - most)} too little")
        if bill.get("cure"):
            lines.append(f"what would fit: {bill['cure']}")
    lines += [f"note: {note}" for note in bill.get("notes", ()) if not note.startswith("rests on assumed")]
    basis = f"basis: {bill['basis']}" + (f"; {bill['error_class']}" if bill.get("error_class") else "")
    lines.append(basis + (f"; assumed: {', '.join(bill['assumed'])}" if bill.get("assumed") else ""))
    return lines


def show_devices(console: Console, devices: list[Any]) -> None:
    """A line a device, cut to a terminal's width."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), expand=console.is_terminal)
    table.add_column("device", no_wrap=True)
    table.add_column("RAM", no_wrap=True, justify="right")
    table.add_column("what it is", no_wrap=True, ratio=3)
    table.add_column("basis", no_wrap=True, ratio=2)
    for kind in dict.fromkeys(device.kind for device in devices):
        table.add_section()
        for device in (one for one in devices if one.kind == kind):
            ram = device.get("sram_bytes", 0.0)
            table.add_row(device.name, kib(ram) if ram else "-", device.title, device.basis)
    if not console.is_terminal:
        console.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table)
    say(console, "every constant of a device with its source: qtrain devices NAME; at another clock: NAME@80MHz")
    for name, why in ABSENT.items():
        say(console, f"no profile of {name}: {why}")


def show_device(console: Console, device: Any) -> None:
    """Every constant of a device with what it rests on."""
    table = Table(title=f"{device.name}: {device.title} ({device.basis})", title_justify="left")
    for name in ("constant", "value", "unit", "basis", "source"):
        table.add_column(name, overflow="fold")
    for key, constant in device.constants.items():
        table.add_row(key, f"{constant.value:g}", constant.unit, constant.basis, constant.source)
    console.print(table)
    for key, text in device.texts.items():
        console.print(f"{key}: {text}", highlight=False)


def show_recipes(console: Console, recipes: Any) -> None:
    """The ways to learn."""
    table = Table("recipe", "learns", "needs", "MACs", "paper", title="MACs: of a step, supervised learning being 1")
    for info in recipes:
        table.add_row(info.name, info.line, info.needs, f"{info.cost_factor:.1f}", info.paper)
    console.print(table)


def show_verification(console: Console, report: dict[str, Any]) -> None:
    """A line a layer: elements compared and mismatches by pass, accumulator bits needed and available, and how its sums
    are kept exact; one line of numbers that are not verifiable."""
    if not report["verifiable"]:
        console.print(f"not verifiable: {report['reason']}", highlight=False, soft_wrap=True)
        return
    passes = ("forward", "error", "gradient", "update")
    table = Table(title=f"{report['model']}, {report['numbers']}, {report['bits']} bits, {report['steps']} steps")
    for name in ("layer", *passes, "mismatches", "accumulator", "assurance"):
        table.add_column(name, justify="left" if name in ("layer", "assurance") else "right", overflow="fold")
    for row in report["layers"]:
        counts = [f"{row['passes'][p]['elements']:,}" if p in row["passes"] else "-" for p in passes]
        wrong = sum(p["mismatches"] for p in row["passes"].values())
        needed = [p["accumulator_bits"] for p in row["passes"].values() if "accumulator_bits" in p]
        accumulator = f"{max(needed)} of {row['accumulator_bits_available']} bits" if needed else "-"
        table.add_row(row["layer"], *counts, str(wrong), accumulator, row["assurance"])
    console.print(table)
    console.print(f"{report['elements']:,} elements compared, {report['mismatches']} mismatches", highlight=False)
    if report.get("first_mismatch"):
        console.print(f"first: {report['first_mismatch']}", highlight=False)
