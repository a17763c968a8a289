"""A bill as a table of phases and a few sentences."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from qtrain.console.words import kib, percent, say, si


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
