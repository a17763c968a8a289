"""What a finished run's trace says: MACs and bit operations saved, and bills on devices. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwmodel import devices, pricing, records
from hwmodel.errors import HwmodelError
from hwmodel.operations import PRUNING, Widths
from hwmodel.schedule import Schedule
from hwmodel.trace import MAX_BATCH, Trace

FP32 = 32
PAPER_BITS, PAPER_DIVISOR = 8, 7.5
"""Wu et al. 2020 count MACs; "+Q" rows (8 bits) divide what remains by 7.1 to 7.9, the rule is not printed."""
PAPER_PHASES = ("forward", "error", "gradient", *PRUNING)
"""What their computation consists of: forward and backward parts with the filter's and the pruning's, no update."""


@dataclass(frozen=True)
class RunRecord:
    """A run's trace, how its networks are trained, and how many steps streamed how many instances."""

    trace: Trace
    schedule: Schedule
    filter_schedule: Schedule | None
    batch_sizes: Mapping[int, int]

    def dense(self, bits: int | None = None) -> Trace:
        """Dense unfiltered training of the same stream, at uniform `bits` or (None) at the run's own widths."""
        widths = None if bits is None else Widths.uniform(bits)
        schedule = self.schedule.dense(widths)
        total = Trace()
        for size, n_steps in self.batch_sizes.items():
            total = total + schedule.step(size).repeated(n_steps)
        return total

    def summary(self) -> dict[str, Any]:
        """MACs by phase, and the fractions saved against dense float32 training of the same stream.

        All overheads count: the filter and its training, uncertain forwards, pruning, requantization.
        `saved_vs_same_bits` compares with dense training at the run's own widths.
        """
        fp32, same = self.dense(FP32), self.dense()
        macs, bitops = self.trace.macs(), self.trace.bit_operations()
        return {
            "macs": {
                "total": macs,
                "by_phase": self.trace.macs_by_phase(),
                "dense_fp32": fp32.macs(),
                "dense_same_bits": same.macs(),
                "filter_share_of_forward": self._filter_share(),
            },
            "filter_network": None if self.filter_schedule is None else self.filter_schedule.network.name,
            "bitops": {"total": bitops, "dense_fp32": fp32.bit_operations(), "dense_same_bits": same.bit_operations()},
            "saved": {"macs": 1 - macs / fp32.macs(), "bitops": 1 - bitops / fp32.bit_operations()},
            "saved_vs_same_bits": {"macs": 1 - macs / same.macs(), "bitops": 1 - bitops / same.bit_operations()},
            "paper_accounting": self.paper_accounting(),
        }

    def paper_accounting(self) -> dict[str, float]:
        """Fraction of dense training's computation that remains as Wu et al. 2020 count it: `remaining_macs`, and
        `remaining` after `divisor` where every layer's numbers have 8 bits or fewer."""

        def computation(trace: Trace) -> int:
            return sum(tally.count * op.macs for op, tally in trace if op.phase in PAPER_PHASES)

        own, common = self.schedule.layer_widths, self.schedule.widths
        widths = {own.get(layer.name, common) for layer in self.schedule.network.layers if layer.macs}
        widest = max(max(w.weight_bits, w.activation_bits, w.error_bits, w.gradient_bits) for w in widths)
        divisor = PAPER_DIVISOR if widest <= PAPER_BITS else 1.0
        remaining = computation(self.trace) / computation(self.dense())
        return {"remaining_macs": remaining, "divisor": divisor, "remaining": remaining / divisor}

    def _filter_share(self) -> float | None:
        """MACs of one filter forward over those of one main forward."""
        if self.filter_schedule is None:
            return None
        return self.filter_schedule.network.macs / self.schedule.network.macs

    def bills(
        self, names: Sequence[str], kernels: str | None = None, clock_mhz: float | None = None
    ) -> list[dict[str, Any]]:
        """The run's bill on each device, with the energy saved against dense training of the same stream."""
        baselines = {"fp32": self.dense(FP32), "same_bits": self.dense()}
        rows = []
        for name in names:
            device = devices.load(name)
            bill = pricing.price(
                self.trace, device, schedule=self.schedule, filter_schedule=self.filter_schedule,
                scope="run", kernels=kernels, clock_mhz=clock_mhz, baselines=baselines,
            )  # fmt: skip
            dense = {
                key: pricing.price(trace, device, scope="run", kernels=kernels, clock_mhz=clock_mhz).to_json()
                for key, trace in baselines.items()
            }
            totals = ("macs", "cycles", "energy_j", "time_s", "by_phase")
            rows.append(bill.to_json() | {"dense": {k: {t: row[t] for t in totals} for k, row in dense.items()}})
        return rows

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the run folder."""
        return {
            "trace": self.trace.to_json(),
            "schedule": self.schedule.to_json(),
            "filter_schedule": None if self.filter_schedule is None else self.filter_schedule.to_json(),
            "batch_sizes": [[size, count] for size, count in sorted(self.batch_sizes.items())],
        }

    @classmethod
    def from_json(cls, data: Any, source: str = "trace.json") -> RunRecord:
        """Inverse of to_json. Raises HwmodelError, opening with `source`, that names what does not fit."""
        try:
            own = records.field(data, "filter_schedule", "record")
            rows = records.items(records.field(data, "batch_sizes", "record"), "batch_sizes")
            pairs = [records.items(row, f"batch_sizes {i}") for i, row in enumerate(rows)]
            if not pairs or any(len(pair) != 2 for pair in pairs):
                raise HwmodelError("batch_sizes must be pairs of a size and a count")
            found = cls(
                Trace.from_json(records.field(data, "trace", "record")),
                Schedule.from_json(records.field(data, "schedule", "record")),
                None if own is None else Schedule.from_json(own),
                {
                    records.whole(size, "batch size", 1, MAX_BATCH): records.whole(count, "steps of a batch size", 1)
                    for size, count in pairs
                },
            )
            if not found.schedule.network.macs:
                raise HwmodelError("schedule: network: it multiplies nothing")
            return found
        except HwmodelError as error:
            raise HwmodelError(f"{source}: {error}; run it again") from None
