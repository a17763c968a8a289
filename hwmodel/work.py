"""What a kernel is asked to do, in countable units, before any core is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """One kernel call of one Op.

    `units` of the kernel's own kind (products, elements, parameters), `outputs` results each paying a set-up and a
    write, `macs` what the bill counts. `unpacked` elements leave a sub-byte container; `bits` are the widths of the
    operands it multiplies. `weight_bytes` of frozen weights are read `reuse` times over. A direct loop meets its
    products in `runs` of one tap's channels, each with an address and a border check of its own.
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
    runs: float = 0.0
