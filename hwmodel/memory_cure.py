"""The cheapest change that makes a training step fit a given RAM, found by recomputing its peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hwmodel.devices import Device
from hwmodel.memory import peak
from hwmodel.operations import Widths
from hwmodel.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Cure:
    """A changed step: what changed, the peak it reaches, and whether that fits."""

    change: str
    peak_ram_bytes: int
    fits: bool

    def __str__(self) -> str:
        verdict = "" if self.fits else ", which still does not fit"
        return f"{self.change}: {self.peak_ram_bytes:,} bytes{verdict}"


def cure(
    schedule: Schedule,
    batch: int,
    ram_limit_bytes: int,
    filter_schedule: Schedule | None = None,
    n_streamed: int | None = None,
    device: Device | None = None,
    n_uncertain: int = 0,
) -> Cure:
    """The first change that fits `ram_limit_bytes`, by what it costs the training.

    In order: nothing; a fused update (the same numbers); a smaller batch (noisier steps; the stream shrinks
    with it); fewer bits; fewer trained layers (the shortest frozen prefix); then all of them together. If
    nothing fits, the smallest peak found.
    """

    def peak_bytes(changed: Schedule, n: int) -> int:
        streamed = None if n_streamed is None else max(n + n_uncertain, n_streamed * n // batch)
        return peak(changed, n, filter_schedule, streamed, False, device, n_uncertain).peak_ram_bytes

    best: Cure | None = None
    for change, changed, n in _changes(schedule, batch, lambda s, m: peak_bytes(s, m) <= ram_limit_bytes):
        n_bytes = peak_bytes(changed, n)
        found = Cure(change, n_bytes, n_bytes <= ram_limit_bytes)
        if found.fits:
            return found
        if best is None or n_bytes < best.peak_ram_bytes:
            best = found
    assert best is not None  # "no change" is always tried
    return best


def _changes(
    schedule: Schedule, batch: int, fits: Callable[[Schedule, int], bool]
) -> Iterator[tuple[str, Schedule, int]]:
    fused = dataclasses.replace(schedule, fused_update=True)
    smaller = [batch >> i for i in range(1, batch.bit_length())]
    yield "no change", schedule, batch
    yield "fused update", fused, batch
    for n in smaller:
        yield f"batch {n}", schedule, n
    for bits in (8, 4):
        if _narrower(schedule.widths, bits):
            yield f"{bits} bits", _at_bits(schedule, bits), batch
    yield from _prefix(schedule, lambda s: fits(s, batch), "", batch)
    for n in smaller:
        yield f"fused update and batch {n}", fused, n
    for bits in (8, 4):
        if _narrower(schedule.widths, bits):
            yield f"fused update, batch 1 and {bits} bits", _at_bits(fused, bits), 1
    yield from _prefix(fused, lambda s: fits(s, 1), "fused update, batch 1 and ", 1)


def _narrower(widths: Widths, bits: int) -> bool:
    return bits < max(widths.weight_bits, widths.activation_bits, widths.error_bits, widths.gradient_bits)


def _at_bits(schedule: Schedule, bits: int) -> Schedule:
    return dataclasses.replace(schedule, widths=Widths.uniform(bits), layer_widths={})


def _prefix(
    schedule: Schedule, fits: Callable[[Schedule], bool], words: str, batch: int
) -> Iterator[tuple[str, Schedule, int]]:
    """The shortest frozen prefix that fits (a longer one never needs more), or the longest if none does."""
    names = [layer.name for layer in schedule.network.layers if layer.name in schedule.trained]

    def frozen(n: int) -> Schedule:
        return dataclasses.replace(schedule, frozen=schedule.frozen | frozenset(names[:n]))

    low, high = 1, len(names) - 1
    while low < high:
        middle = (low + high) // 2
        if fits(frozen(middle)):
            high = middle
        else:
            low = middle + 1
    if high >= 1:
        yield f"{words}train from {names[high]} on", frozen(high), batch
