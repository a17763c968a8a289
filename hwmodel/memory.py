"""Peak RAM and flash of a training step or an inference, from the lifetimes of its tensors."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from hwmodel.devices import Device
from hwmodel.errors import HwmodelError
from hwmodel.lifetimes import Step, Tenant
from hwmodel.operations import Op
from hwmodel.passes import Passes, ordered
from hwmodel.schedule import Schedule
from hwmodel.storage import Packing, buffer_bytes


@dataclass(frozen=True, slots=True)
class Moment:
    """Memory while one pass runs: all bytes, and bytes by role of the live tensors."""

    name: str
    n_bytes: int
    by_role: dict[str, int]


@dataclass(frozen=True)
class MemoryBill:
    """Memory of a step or an inference.

    `peak_ram_bytes` is the largest of the `timeline`'s moments and `tenants` are the tensors alive then,
    largest first. `flash_bytes` holds frozen weights and, if a device is given, the code. `fits` is None
    without a device.
    """

    peak_ram_bytes: int
    flash_bytes: int
    peak_moment: str
    timeline: tuple[Moment, ...]
    tenants: tuple[Tenant, ...]
    ram_limit_bytes: int | None = None
    flash_limit_bytes: int | None = None
    find_cure: Callable[[int], str] | None = field(default=None, repr=False, compare=False)

    @property
    def cure(self) -> str | None:
        """The cheapest change that would make the step fit, with its bytes; None if it fits or without a
        device."""
        if self.fits is not False or self.find_cure is None or self.ram_limit_bytes is None:
            return None
        return self.find_cure(self.ram_limit_bytes)

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
            "cure": self.cure,
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

    With a `filter_schedule` the filter sees `n_streamed` instances (default: `batch` + `n_uncertain`) and
    trains on `batch` + `n_uncertain`; in between it keeps what its backward pass needs. The order of passes
    is the schedule's; with `fused_update` each layer is updated right after its backward passes. Without a
    device values are packed bit by bit and code is not counted. Raises HwmodelError for a batch below 1 or
    fewer streamed instances than kept.
    """
    if batch < 1 or n_uncertain < 0:
        raise HwmodelError(f"batch {batch}, uncertain {n_uncertain}: needs at least one instance")
    packing = Packing(containers=device is not None and device.kind == "mcu")
    if inference:
        schedule, filter_schedule = _frozen(schedule), None
    n_learned = batch + n_uncertain
    n_streamed = n_learned if n_streamed is None else n_streamed
    if n_streamed < n_learned:
        raise HwmodelError(f"streamed {n_streamed} instances but kept {n_learned}; keep at most the stream")

    if inference:
        ops = list(schedule.forward(batch))
    else:
        ops = ordered(schedule, batch, filter_schedule, n_streamed, n_uncertain)
    tenants = [
        tenant
        for step, prefix in _steps(schedule, batch, filter_schedule, n_streamed, n_uncertain, ops, packing)
        for tenant in step.tenants(prefix)
    ]
    for i, op in enumerate(ops):
        tenants += [Tenant(op.layer.name, role, n_bytes, i, i) for role, n_bytes in buffer_bytes(op, packing).items()]
    frozen = sum(_frozen_bytes(net, packing) for net in (schedule, filter_schedule) if net is not None)
    bill = _bill([f"{op.report_phase} {op.layer.name}" for op in ops], tenants, frozen, device)
    if inference or device is None:
        return bill

    def find_cure(limit_bytes: int) -> str:
        from hwmodel.memory_cure import cure

        return str(cure(schedule, batch, limit_bytes, filter_schedule, n_streamed, device, n_uncertain))

    return dataclasses.replace(bill, find_cure=find_cure)


def _steps(
    schedule: Schedule,
    batch: int,
    filter_schedule: Schedule | None,
    n_streamed: int,
    n_uncertain: int,
    ops: list[Op],
    packing: Packing,
) -> Iterator[tuple[Step, str]]:
    """The networks' tensors, each with the prefix of its names."""
    main = Passes.of(ops, "main")
    decided = 0
    if filter_schedule is not None:
        passes, n_learned = Passes.of(ops, "filter"), batch + n_uncertain
        images = (0, passes.forward_end)  # which to keep is known after the whole stream
        yield Step(filter_schedule, passes, n_streamed, n_learned, packing, images), "filter "
        decided = passes.forward_end + 1
    codes_from = None
    if n_uncertain:
        passes = Passes.of(ops, "uncertain")
        codes_from = passes.forward_start
        unlearned = dataclasses.replace(schedule, frozen=schedule.trained | schedule.frozen)
        images = (decided, passes.forward_start)
        yield Step(unlearned, passes, n_uncertain, n_uncertain, packing, images), "uncertain "
    yield Step(schedule, main, batch, batch, packing, (decided, main.forward_start), codes_from), ""


def _frozen(schedule: Schedule) -> Schedule:
    """The same numbers for inference: normalizations folded, no layer trained."""
    network = schedule.network.folded()
    return dataclasses.replace(schedule, network=network, frozen=frozenset(la.name for la in network.layers))


def _frozen_bytes(schedule: Schedule, packing: Packing) -> int:
    """Parameters that no update changes: weights as codes, biases as accumulators."""
    total = 0
    for layer in schedule.network.layers:
        w, trains = schedule.layer_widths.get(layer.name, schedule.widths), schedule.trains(layer.name)
        if trains != "all":
            total += packing.bytes(layer.n_weights, w.weight_bits)
        if trains == "none":
            total += packing.bytes(layer.n_parameters - layer.n_weights, w.accumulator_bits)
    return total


def _bill(names: list[str], tenants: list[Tenant], frozen: int, device: Device | None) -> MemoryBill:
    if device is not None and "flash_bytes" not in device.constants:  # no program memory: frozen weights are data
        tenants = [*tenants, Tenant("frozen weights", "frozen weights", frozen, 0, len(names) - 1)]
        frozen = 0
    timeline = _timeline(names, tenants)
    top = max(range(len(timeline)), key=lambda i: timeline[i].n_bytes)
    alive = [t for t in tenants if t.first <= top <= t.last and t.n_bytes]
    return MemoryBill(
        peak_ram_bytes=timeline[top].n_bytes,
        flash_bytes=frozen + (round(device.get("code_bytes", 0)) if device is not None else 0),
        peak_moment=timeline[top].name,
        timeline=timeline,
        tenants=tuple(sorted(alive, key=lambda t: -t.n_bytes)),
        ram_limit_bytes=None if device is None else ram_limit_bytes(device),
        flash_limit_bytes=None if device is None or "flash_bytes" not in device.constants
        else round(device.value("flash_bytes")),
    )  # fmt: skip


def ram_limit_bytes(device: Device) -> int:
    """Memory that can hold a step's tensors: external where the device has it, else on chip."""
    return round(device.get("external_bytes", 0) or device.value("sram_bytes"))


def _timeline(names: list[str], tenants: Iterable[Tenant]) -> tuple[Moment, ...]:
    """Running sums of what is born and what dies, by role."""
    changes: dict[str, list[int]] = defaultdict(lambda: [0] * (len(names) + 1))
    for tenant in tenants:
        row = changes[tenant.role]
        row[tenant.first] += tenant.n_bytes
        row[tenant.last + 1] -= tenant.n_bytes
    sums = {role: list(accumulate(row)) for role, row in changes.items()}
    moments = []
    for i, name in enumerate(names):
        by_role = {role: row[i] for role, row in sums.items() if row[i]}
        moments.append(Moment(name, sum(by_role.values()), by_role))
    return tuple(moments)
