"""The Bill: what a trace costs on a device, and its JSON form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hwmodel.confidence import basis, error_class, notes
from hwmodel.devices import Device

if TYPE_CHECKING:
    from hwmodel.memory import MemoryBill

SCOPES = ("run", "step", "inference")
N_TENANTS = 5
"""Largest tensors at the moment of peak RAM that a bill names."""
CR2032_J = 225e-3 * 3600 * 3.0
"""Energy of a CR2032 coin cell: 225 mAh at a nominal 3 V (Energizer CR2032 datasheet, typical capacity to 2.0 V)."""


@dataclass(slots=True)
class Sums:
    """Running sums over kernels."""

    macs: int = 0
    cycles: float = 0.0
    energy_j: float = 0.0
    sram_bytes: float = 0.0
    flash_bytes: float = 0.0
    external_bytes: float = 0.0

    def add(self, other: Sums, times: int) -> None:
        """Add `other` that many times."""
        self.macs += other.macs * times
        self.cycles += other.cycles * times
        self.energy_j += other.energy_j * times
        self.sram_bytes += other.sram_bytes * times
        self.flash_bytes += other.flash_bytes * times
        self.external_bytes += other.external_bytes * times

    def to_json(self) -> dict[str, Any]:
        """The three sums every row of a bill shows."""
        return {"macs": self.macs, "cycles": self.cycles, "energy_j": self.energy_j}


@dataclass(frozen=True, eq=False)
class Bill:
    """Price of a trace on a device; `by_layer` is keyed by (layer, kind, report phase). `search_cure` looks for what
    would make it fit: some twenty peaks, over half a price, so that it waits until somebody asks for the `cure`."""

    device: Device
    scope: str
    n_instances: int
    n_steps: int
    totals: Sums
    by_phase: dict[str, Sums]
    by_layer: dict[tuple[str, str, str], Sums]
    by_kernel: dict[str, Sums]
    memory: MemoryBill | None
    search_cure: Callable[[], str | None]
    saved_energy_vs_fp32: float | None
    saved_energy_vs_same_bits: float | None

    @property
    def energy_j(self) -> float:
        return self.totals.energy_j

    @property
    def cycles(self) -> float:
        return self.totals.cycles

    @property
    def time_s(self) -> float:
        """Seconds at the device's clock."""
        return self.totals.cycles / self.device.value("clock_hz")

    @property
    def fits(self) -> bool | None:
        """Whether peak RAM and flash fit the device; None without a schedule."""
        return None if self.memory is None else self.memory.fits

    @cached_property
    def cure(self) -> str | None:
        """The cheapest change that makes a training step fit the device's RAM; None where it fits, or for an inference,
        or without a schedule."""
        return self.search_cure()

    def to_json(self) -> dict[str, Any]:
        """Plain data, units in the names."""
        device = self.device
        return {
            "device": device.name,
            "kernels": device.texts.get("kernels"),
            "scope": self.scope,
            "n_instances": self.n_instances,
            "n_steps": self.n_steps,
            "macs": self.totals.macs,
            "energy_j": self.energy_j,
            "cycles": self.cycles,
            "time_s": self.time_s,
            "clock_hz": device.value("clock_hz"),
            **self._memory_json(),
            "basis": basis(device),
            "error_class": error_class(device, self.scope),
            "energy_basis": device.texts.get("power_basis"),
            "assumed": list(device.assumed),
            "notes": notes(device, self.scope),
            "saved_energy_vs_fp32": self.saved_energy_vs_fp32,
            "saved_energy_vs_same_bits": self.saved_energy_vs_same_bits,
            "cr2032_lasts": CR2032_J / self.energy_j if self.energy_j else None,
            "traffic_bytes": {
                "sram": self.totals.sram_bytes,
                "flash": self.totals.flash_bytes,
                "external": self.totals.external_bytes,
            },
            "by_phase": {phase: sums.to_json() for phase, sums in self.by_phase.items()},
            "by_layer": [
                {"layer": layer, "kind": kind, "phase": phase, **sums.to_json()}
                for (layer, kind, phase), sums in self.by_layer.items()
            ],
            "by_kernel": {kernel: sums.to_json() for kernel, sums in sorted(self.by_kernel.items())},
        }

    def _memory_json(self) -> dict[str, Any]:
        """Memory fields; without a schedule they are null."""
        memory = self.memory
        if memory is None:
            return {"peak_ram_bytes": None, "flash_bytes": None, "fits": None}
        limit = memory.ram_limit_bytes
        return {
            "peak_ram_bytes": memory.peak_ram_bytes,
            "flash_bytes": memory.flash_bytes,
            "flash_limit_bytes": memory.flash_limit_bytes,
            "fits": memory.fits,
            "ram_limit_bytes": limit,
            "ram_left_bytes": None if limit is None else limit - memory.peak_ram_bytes,
            "peak_moment": memory.peak_moment,
            "tenants": [{"name": t.name, "role": t.role, "n_bytes": t.n_bytes} for t in memory.tenants[:N_TENANTS]],
            "cure": self.cure,
        }
