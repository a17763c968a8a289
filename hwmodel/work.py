"""What a kernel is asked to do, in countable units, before any core is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodel.loops import Trips


@dataclass(frozen=True, slots=True)
class Work:
    """One kernel call of one Op.

    `units` of the kernel's own kind (products, elements, parameters), `outputs` results each paying a set-up and a
    write, `macs` what the bill counts. `unpacked` elements leave a sub-byte container; `bits` are the widths of the
    operands it multiplies. `weight_bytes` of frozen weights are read `reuse` times over. `trips` says how
    often a direct loop would enter each of its levels.
    """

    kernel: str
    phase: str
    macs: int
    units: float
    outputs: float = 0.0
    bits: tuple[int, int] = (8, 8)
    unpacked: float = 0.0
    sram_bytes: float = 0.0
    weight_bytes: float = 0.0
    reuse: float = 1.0
    trips: Trips | None = None
