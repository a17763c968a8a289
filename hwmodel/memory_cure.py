"""The cheapest change that makes a training step fit a given RAM, found by recomputing its peak."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hwmodel.devices import Device
from hwmodel.memory import peak
from hwmodel.occupation import Same
from hwmodel.operations import Widths
from hwmodel.schedule import Schedule

NARROWER_BITS = (8, 4)


@dataclass(frozen=True, slots=True)
class Change:
    """What to change in a step; the default is nothing. `n_frozen` trained layers from the input on are frozen."""

    batch: int
    smaller: bool = False
    fused: bool = False
    bits: int = 0
    n_frozen: int = 0

    def words(self, schedule: Schedule) -> str:
        """The change in words."""
        parts = ["fused update"] if self.fused else []
        if self.smaller:
            parts.append(f"batch {self.batch}")
        if self.bits:
            parts.append(f"{self.bits} bits")
        if self.n_frozen:
            parts.append(f"train from {_trained(schedule)[self.n_frozen]} on")
        return ", ".join(parts[:-1]) + (" and " if parts[1:] else "") + parts[-1] if parts else "no change"


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

    In order: nothing; a fused update (the same numbers); a smaller batch (noisier steps; the stream shrinks with it);
    fewer bits; fewer trained layers (the shortest frozen prefix); then these together. If nothing fits, the smallest
    peak found.
    """

    def n_bytes(change: Change) -> int:
        n = change.batch
        streamed = None if n_streamed is None else max(n + n_uncertain, n_streamed * n // batch)
        changed = _changed(Same(schedule), change.fused, change.bits, change.n_frozen)
        return peak(changed, n, filter_schedule, streamed, False, device, n_uncertain).peak_ram_bytes

    best: tuple[int, Change] | None = None
    for change in _changes(schedule, batch, lambda change: n_bytes(change) <= ram_limit_bytes):
        found = n_bytes(change)
        if found <= ram_limit_bytes:
            return Cure(change.words(schedule), found, True)
        if best is None or found < best[0]:
            best = (found, change)
    assert best is not None  # "no change" is always tried
    return Cure(best[1].words(schedule), best[0], False)


def _changes(schedule: Schedule, batch: int, fits: Callable[[Change], bool]) -> Iterator[Change]:
    smaller = [Change(batch >> i, smaller=True) for i in range(1, batch.bit_length())]
    w = schedule.widths
    widest = max(w.weight_bits, w.activation_bits, w.error_bits, w.gradient_bits)
    narrower = [bits for bits in NARROWER_BITS if bits < widest]
    prefixes = range(1, len(_trained(schedule)))
    plain = Change(batch)
    least = Change(1, smaller=batch > 1, fused=True)
    yield plain
    yield dataclasses.replace(plain, fused=True)
    yield from _mildest(smaller, fits)
    yield from _mildest([dataclasses.replace(plain, bits=bits) for bits in narrower], fits)
    yield from _mildest([dataclasses.replace(plain, n_frozen=n) for n in prefixes], fits)
    yield from _mildest([dataclasses.replace(change, fused=True) for change in smaller], fits)
    yield from _mildest([dataclasses.replace(least, bits=bits) for bits in narrower], fits)
    yield from _mildest([dataclasses.replace(least, n_frozen=n) for n in prefixes], fits)


def _mildest(family: Sequence[Change], fits: Callable[[Change], bool]) -> Iterator[Change]:
    """The first of a family that fits, where none needs more than the one before; the last if none does."""
    if family:
        last = len(family) - 1
        yield family[bisect_left(family, True, hi=last, key=fits) if fits(family[last]) else last]


def _trained(schedule: Schedule) -> list[str]:
    """Names of the trained layers in order of execution."""
    return [layer.name for layer in schedule.network.layers if layer.name in schedule.trained]


@lru_cache(maxsize=256)
def _changed(same: Same, fused: bool, bits: int, n_frozen: int) -> Schedule:
    """The changed schedule, the same object each time, so that its peak is computed once for all devices."""
    schedule = same.schedule
    assert schedule is not None
    if fused:
        schedule = dataclasses.replace(schedule, fused_update=True)
    if bits:
        schedule = dataclasses.replace(schedule, widths=Widths.uniform(bits), layer_widths={})
    if n_frozen:
        frozen = schedule.frozen | frozenset(_trained(schedule)[:n_frozen])
        schedule = dataclasses.replace(schedule, frozen=frozen)
    return schedule
