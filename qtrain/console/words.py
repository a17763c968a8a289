"""How numbers, shares, bytes and sentences are written."""

from __future__ import annotations

from rich.console import Console

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
