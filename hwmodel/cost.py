"""What one kernel of one Op costs on a device: the row that every device family hands to the pricing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KernelCost:
    """Cost of one kernel of one Op, once.

    `kernel` is the routine a library would run (gemm, im2col, requantize, ...), `phase` the report phase it is charged
    to. Bytes count traffic, not storage: `flash_bytes` are frozen weights read from program memory, `sram_bytes` the
    on-chip and `external_bytes` the off-chip accesses. `energy_j` includes the static energy of `cycles`.
    """

    layer: str
    layer_kind: str
    kernel: str
    phase: str
    macs: int
    cycles: float
    energy_j: float
    sram_bytes: float = 0.0
    flash_bytes: float = 0.0
    external_bytes: float = 0.0
