"""Tables of devices, of the ways to learn, and of a verification."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from hwmodel.device_schema import ABSENT
from qtrain.console.words import kib, say


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
