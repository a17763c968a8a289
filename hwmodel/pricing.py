"""Trace x device -> Bill: energy, cycles, time and bytes, by phase, layer and kernel, each with its basis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from hwmodel.bill import SCOPES, Bill, Sums
from hwmodel.cost import KernelCost
from hwmodel.devices import Device
from hwmodel.errors import HwmodelError, shown, unknown
from hwmodel.operating_point import configured
from hwmodel.operations import REPORT_PHASES, Op
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace

if TYPE_CHECKING:
    from hwmodel.memory import MemoryBill

__all__ = ["Bill", "KernelCost", "kernel_costs", "memory", "price"]

NAMELESS = "layer '': "


def price(
    trace: Trace,
    device: Device,
    *,
    schedule: Schedule | None = None,
    filter_schedule: Schedule | None = None,
    batch: int | None = None,
    scope: str = "step",
    kernels: str | None = None,
    clock_mhz: float | None = None,
    baselines: Mapping[str, Trace] | None = None,
) -> Bill:
    """The bill of `trace` on `device`.

    `schedule` (and `filter_schedule`) give the peak memory at `batch` instances (by default the largest the trace
    trained on); without one the memory fields are None. `kernels` and `clock_mhz` choose another kernel library and
    operating point than the device's defaults. `baselines` may hold the traces "fp32" and "same_bits" of dense,
    unfiltered training on the same stream; the bill states the energy saved against each.
    Raises HwmodelError for an unknown scope, library or clock.
    """
    if scope not in SCOPES:
        raise HwmodelError(unknown("scope", scope, SCOPES))
    device = configured(device, kernels, clock_mhz)
    totals, by_phase, by_layer, by_kernel = _sums(trace, device)
    energy_j = totals.energy_j
    saved = {name: _saved(energy_j, baseline, device) for name, baseline in (baselines or {}).items()}
    held: MemoryBill | None = None
    search_cure: Callable[[], str | None] = _none
    if schedule is not None:
        held, search_cure = _memory(trace, device, schedule, filter_schedule, batch, scope == "inference")
    return Bill(
        device=device,
        scope=scope,
        n_instances=trace.n_instances,
        n_steps=trace.n_steps,
        totals=totals,
        by_phase=by_phase,
        by_layer=by_layer,
        by_kernel=by_kernel,
        memory=held,
        search_cure=search_cure,
        saved_energy_vs_fp32=saved.get("fp32"),
        saved_energy_vs_same_bits=saved.get("same_bits"),
    )


def kernel_costs(op: Op, density: float, device: Device) -> list[KernelCost]:
    """Every kernel of one Op on a device of any kind; `density` is the share of non-zero error elements."""
    return _model(device.kind)(op, density, device)


def _model(kind: str) -> Callable[[Op, float, Device], list[KernelCost]]:
    if kind == "mcu":
        from hwmodel import mcu

        return mcu.kernel_costs
    from hwmodel import accelerator

    return accelerator.kernel_costs


@dataclasses.dataclass(frozen=True, eq=False)
class _Priced:
    """An Op's kernels and their sums by phase. Known by its identity: an Op's hash costs more than the use of it."""

    costs: tuple[KernelCost, ...]
    by_phase: dict[str, Sums]


def _sums(
    trace: Trace, device: Device
) -> tuple[Sums, dict[str, Sums], dict[tuple[str, str, str], Sums], dict[str, Sums]]:
    """Totals, and sums by phase, by (layer, kind, phase) and by kernel."""
    by_phase = {phase: Sums() for phase in REPORT_PHASES}
    by_layer: dict[tuple[str, str, str], Sums] = {}
    by_kernel: dict[str, Sums] = {}
    counts: dict[_Priced, int] = {}
    for op, tally in trace:
        try:
            priced = _priced(_anonymous(op), round(tally.density, 3), device)
        except HwmodelError as error:  # the Op priced has no name
            raise HwmodelError(f"layer {shown(op.layer.name)}: {str(error).removeprefix(NAMELESS)}") from None
        counts[priced] = counts.get(priced, 0) + tally.count
        for phase, row in priced.by_phase.items():
            layer = (op.layer.name, op.layer.kind, phase)
            by_layer.setdefault(layer, Sums()).add(row, tally.count)
    totals = Sums()
    for priced, count in counts.items():
        for cost in priced.costs:
            row = Sums(cost.macs, cost.cycles, cost.energy_j, cost.sram_bytes, cost.flash_bytes, cost.external_bytes)
            totals.add(row, count)
            by_phase[cost.phase].add(row, count)
            by_kernel.setdefault(cost.kernel, Sums()).add(row, count)
    return totals, by_phase, by_layer, by_kernel


@lru_cache(maxsize=100_000)
def _anonymous(op: Op) -> Op:
    """The Op without its layer's place in the network: equal shapes are priced once."""
    return dataclasses.replace(op, layer=dataclasses.replace(op.layer, name="", inputs=()))


@lru_cache(maxsize=100_000)
def _priced(op: Op, density: float, device: Device) -> _Priced:
    costs, sums = tuple(kernel_costs(op, density, device)), dict[str, Sums]()
    for cost in costs:
        sums.setdefault(cost.phase, Sums()).add(Sums(cost.macs, cost.cycles, cost.energy_j), 1)
    return _Priced(costs, sums)


def _saved(energy_j: float, baseline: Trace, device: Device) -> float | None:
    """Share of the baseline's energy that is not spent."""
    total = _sums(baseline, device)[0].energy_j
    return 1 - energy_j / total if total else None


def memory(trace: Trace, device: Device, schedule: Schedule, filter_schedule: Schedule | None = None) -> MemoryBill:
    """Memory of the largest training step in the trace."""
    from hwmodel.memory import peak

    n, n_streamed, n_uncertain = _largest_step(trace, None)
    return peak(schedule, n, filter_schedule, n_streamed, device=device, n_uncertain=n_uncertain)


def _memory(
    trace: Trace,
    device: Device,
    schedule: Schedule,
    filter_schedule: Schedule | None,
    batch: int | None,
    inference: bool,
) -> tuple[MemoryBill, Callable[[], str | None]]:
    """Peak memory of the largest step in the trace, and what finds the cheapest change that makes it fit."""
    from hwmodel.memory import peak

    n, n_streamed, n_uncertain = _largest_step(trace, batch)
    if inference:
        return peak(schedule, n, inference=True, device=device), _none
    found = peak(schedule, n, filter_schedule, n_streamed, device=device, n_uncertain=n_uncertain)
    limit = found.ram_limit_bytes
    if limit is None or found.peak_ram_bytes <= limit:
        return found, _none
    return found, partial(_cure, schedule, n, limit, filter_schedule, n_streamed, device, n_uncertain)


def _cure(
    schedule: Schedule, batch: int, limit: int, filter_schedule: Schedule | None, n_streamed: int, device: Device,
    n_uncertain: int,
) -> str:  # fmt: skip
    from hwmodel.memory_cure import cure

    return str(cure(schedule, batch, limit, filter_schedule, n_streamed, device=device, n_uncertain=n_uncertain))


def _none() -> None:
    """The cure of what fits, of an inference, and of a bill without a schedule."""


def _largest_step(trace: Trace, batch: int | None) -> tuple[int, int, int]:
    """The most instances that one step trained on (or `batch`), streamed, and forwarded for their loss alone."""
    n = batch or _largest_batch(trace, "forward", "main") or 1
    n_uncertain = _largest_batch(trace, "forward", "uncertain")
    return n, max(n + n_uncertain, _largest_batch(trace, "forward", "filter")), n_uncertain


def _largest_batch(trace: Trace, phase: str, payer: str) -> int:
    """The largest batch of a kind of pass; 0 if there was none."""
    return max((op.batch for op, _ in trace if (op.phase, op.payer) == (phase, payer)), default=0)


def cache_clear() -> None:
    """Forget all prices (for timing)."""
    from hwmodel.kernels import works

    for function in (_anonymous, _priced, works):
        function.cache_clear()
