"""Peak RAM and flash of a training step or an inference, from the lifetimes of its tensors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from hwmodel.devices import Device
from hwmodel.errors import HwmodelError
from hwmodel.lifetimes import Tenant
from hwmodel.occupation import Case, Moment, Occupation, Same, occupation
from hwmodel.schedule import Schedule
from hwmodel.storage import Packing

__all__ = ["MemoryBill", "Moment", "Tenant", "peak", "ram_limit_bytes"]


@dataclass(frozen=True)
class MemoryBill:
    """Memory of a step or an inference.

    `peak_ram_bytes` is the largest of the `timeline`'s moments and `tenants` are the tensors alive then, largest first.
    `flash_bytes` holds frozen weights and, if a device is given, the code. `fits` is None without a device.
    """

    peak_ram_bytes: int
    flash_bytes: int
    peak_moment: str
    tenants: tuple[Tenant, ...]
    ram_limit_bytes: int | None
    flash_limit_bytes: int | None
    occupation: Occupation = field(repr=False, compare=False)

    @property
    def timeline(self) -> tuple[Moment, ...]:
        """Every pass in order, with the bytes live while it runs."""
        return self.occupation.timeline

    @property
    def fits(self) -> bool | None:
        """Whether RAM and flash hold it."""
        if self.ram_limit_bytes is None:
            return None
        flash = self.flash_limit_bytes
        return self.peak_ram_bytes <= self.ram_limit_bytes and (flash is None or self.flash_bytes <= flash)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "peak_ram_bytes": self.peak_ram_bytes,
            "flash_bytes": self.flash_bytes,
            "peak_moment": self.peak_moment,
            "ram_limit_bytes": self.ram_limit_bytes,
            "flash_limit_bytes": self.flash_limit_bytes,
            "fits": self.fits,
            "tenants": [tenant.to_json() for tenant in self.tenants],
            "timeline": [dataclasses.asdict(moment) for moment in self.timeline],
        }


def peak(
    schedule: Schedule,
    batch: int,
    filter_schedule: Schedule | None = None,
    n_streamed: int | None = None,
    inference: bool = False,
    device: Device | None = None,
    n_uncertain: int = 0,
) -> MemoryBill:
    """Memory of one step that trains on `batch` instances, or of one inference of `batch`.

    With a `filter_schedule` the filter sees `n_streamed` instances (default: `batch` + `n_uncertain`) and trains on
    `batch` + `n_uncertain`; in between it keeps what its backward pass needs. The order of passes is the schedule's;
    with `fused_update` each layer is updated right after its backward passes. Without a device values are packed bit by
    bit and code is not counted; a device without flash holds frozen weights in RAM. Raises HwmodelError for a batch
    below 1 or fewer streamed instances than kept.
    """
    if batch < 1 or n_uncertain < 0:
        raise HwmodelError(f"batch {batch}, uncertain {n_uncertain}: needs at least one instance")
    n_learned = batch + n_uncertain
    n_streamed = n_learned if n_streamed is None else n_streamed
    if n_streamed < n_learned:
        raise HwmodelError(f"streamed {n_streamed} instances but kept {n_learned}; keep at most the stream")
    software = device is None or device.kind == "mcu" or "core" in device.texts
    packing = Packing(containers=device is not None and device.kind == "mcu", copies=software)
    if inference:
        schedule, filter_schedule = _frozen(Same(schedule)), None
    case = Case(Same(schedule), batch, Same(filter_schedule), n_streamed, n_uncertain, inference, packing)
    return _bill(occupation(case), device)


@lru_cache(maxsize=64)
def _frozen(same: Same) -> Schedule:
    """The same numbers for inference: normalizations folded, no layer trained."""
    schedule = same.schedule
    assert schedule is not None
    network = schedule.network.folded()
    return dataclasses.replace(schedule, network=network, frozen=frozenset(la.name for la in network.layers))


def _bill(occupied: Occupation, device: Device | None) -> MemoryBill:
    flash_limit = ram_limit = None
    ram, flash = 0, occupied.frozen_bytes
    tenants = occupied.peak_tenants
    if device is not None:
        ram_limit = ram_limit_bytes(device)
        if "flash_bytes" in device.constants:
            flash_limit = round(device.value("flash_bytes"))
        else:  # no program memory: frozen weights are data, at every moment
            ram, flash = flash, 0
            tenants = (*tenants, Tenant("frozen weights", "frozen weights", ram, 0, len(occupied.names) - 1))
        flash += round(device.get("code_bytes", 0))
    return MemoryBill(
        peak_ram_bytes=occupied.totals[occupied.peak] + ram,
        flash_bytes=flash,
        peak_moment=occupied.names[occupied.peak],
        tenants=tenants,
        ram_limit_bytes=ram_limit,
        flash_limit_bytes=flash_limit,
        occupation=occupied,
    )


def ram_limit_bytes(device: Device) -> int:
    """Memory that can hold a step's tensors: external where the device has it, else on chip."""
    return round(device.get("external_bytes", 0) or device.value("sram_bytes"))
