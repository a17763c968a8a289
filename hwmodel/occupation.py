"""All tensors of a step or an inference with their lifetimes: what memory is occupied by, moment by moment."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

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


@dataclass(frozen=True, eq=False)
class Occupation:
    """Tenants by moment of one step; `names` are the moments, `frozen_bytes` the parameters that nothing changes."""

    names: tuple[str, ...]
    tenants: tuple[Tenant, ...]
    frozen_bytes: int

    @cached_property
    def totals(self) -> list[int]:
        """Bytes at each moment."""
        change = [0] * (len(self.names) + 1)
        for tenant in self.tenants:
            change[tenant.first] += tenant.n_bytes
            change[tenant.last + 1] -= tenant.n_bytes
        return list(accumulate(change[:-1]))

    @cached_property
    def peak(self) -> int:
        """The first moment with the most bytes."""
        return max(range(len(self.names)), key=self.totals.__getitem__)

    @cached_property
    def peak_tenants(self) -> tuple[Tenant, ...]:
        """The tensors alive at the peak, largest first."""
        alive = (t for t in self.tenants if t.first <= self.peak <= t.last and t.n_bytes)
        return tuple(sorted(alive, key=lambda t: -t.n_bytes))

    @cached_property
    def timeline(self) -> tuple[Moment, ...]:
        """Every moment with its bytes by role."""
        changes: dict[str, list[int]] = defaultdict(lambda: [0] * (len(self.names) + 1))
        for tenant in self.tenants:
            row = changes[tenant.role]
            row[tenant.first] += tenant.n_bytes
            row[tenant.last + 1] -= tenant.n_bytes
        sums = {role: list(accumulate(row)) for role, row in changes.items()}
        return tuple(
            Moment(name, self.totals[i], {role: row[i] for role, row in sums.items() if row[i]})
            for i, name in enumerate(self.names)
        )


@dataclass(frozen=True, slots=True)
class Same:
    """A schedule compared by identity: schedules hold dicts, and pricing one on many devices passes the same object."""

    schedule: Schedule | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.schedule is other.schedule

    def __hash__(self) -> int:
        return id(self.schedule)


@dataclass(frozen=True, slots=True)
class Case:
    """Whose memory is asked for; see hwmodel.memory.peak."""

    schedule: Same
    batch: int
    filter_schedule: Same
    n_streamed: int
    n_uncertain: int
    inference: bool
    packing: Packing


@lru_cache(maxsize=256)
def occupation(case: Case) -> Occupation:
    """The occupation of one step or inference."""
    schedule, filter_schedule = case.schedule.schedule, case.filter_schedule.schedule
    assert schedule is not None
    if case.inference:
        ops = list(schedule.forward(case.batch))
    else:
        ops = ordered(schedule, case.batch, filter_schedule, case.n_streamed, case.n_uncertain)
    tenants = [tenant for step, prefix in _steps(case, schedule, ops) for tenant in step.tenants(prefix)]
    for i, op in enumerate(ops):
        buffers = buffer_bytes(op, case.packing).items()
        tenants += [Tenant(op.layer.name, role, n_bytes, i, i) for role, n_bytes in buffers]
    if not case.inference:
        held = schedule.extra_ram_bytes.items()
        tenants += [Tenant(name, "held by the recipe", n_bytes, 0, len(ops) - 1) for name, n_bytes in held]
    frozen = sum(_frozen_bytes(net, case.packing) for net in (schedule, filter_schedule) if net is not None)
    return Occupation(tuple(f"{op.report_phase} {op.layer.name}" for op in ops), tuple(tenants), frozen)


def _steps(case: Case, schedule: Schedule, ops: list[Op]) -> Iterator[tuple[Step, str]]:
    """The networks' tensors, each with the prefix of its names."""
    main, packing = Passes.of(ops, "main"), case.packing
    filter_schedule, n_uncertain = case.filter_schedule.schedule, case.n_uncertain
    decided = 0
    if filter_schedule is not None:
        passes, n_learned = Passes.of(ops, "filter"), case.batch + n_uncertain
        images = (0, passes.forward_end)  # which to keep is known after the whole stream
        yield Step(filter_schedule, passes, case.n_streamed, n_learned, packing, images), "filter "
        decided = passes.forward_end + 1
    codes_from = None
    if n_uncertain:
        passes = Passes.of(ops, "uncertain")
        codes_from = passes.forward_start
        unlearned = dataclasses.replace(schedule, frozen=schedule.trained | schedule.frozen)
        images = (decided, passes.forward_start)
        yield Step(unlearned, passes, n_uncertain, n_uncertain, packing, images), "uncertain "
    yield Step(schedule, main, case.batch, case.batch, packing, (decided, main.forward_start), codes_from), ""


def _frozen_bytes(schedule: Schedule, packing: Packing) -> int:
    """Parameters that no update changes: weights as codes, biases as accumulators."""
    total = 0
    for layer in schedule.network.layers:
        w, trains = schedule.layer_widths.get(layer.name, schedule.widths), schedule.trains(layer.name)
        frozen = layer.out_channels  # channels whose weights do not learn
        if trains == "all":
            frozen -= schedule.trained_channels.get(layer.name, frozen)
        if frozen and trains != "bias":
            total += packing.bytes(
                (layer.n_parameters - layer.n_weights) // layer.out_channels * frozen, w.accumulator_bits
            )
        total += packing.bytes(layer.n_weights // layer.out_channels * frozen, w.weight_bits)
    return total
