"""The trace: how often each distinct Op happened, and the sums one reads off it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hwmodel import records
from hwmodel.errors import HwmodelError, shown
from hwmodel.operations import MAX_CHANNELS, REPORT_PHASES, Layer, Op, Widths, error_weight_bits, quantize_charged_to

N_COLUMNS = (10, 11)
"""Values in a row of a trace's JSON; the last, the trained channels, is left out where all are."""
MAX_BATCH, MAX_TERMS = 2**32, 16
"""Largest batch, and most multiply-accumulates per parameter of an update."""
ROUNDING = 1e-6
"""Relative error allowed in a sum of densities."""
_TEXTS = ((2, "phase"), (3, "payer"), (6, "trains"))
_COUNTS = ((4, "batch", MAX_BATCH), (5, "kept_channels", MAX_CHANNELS), (7, "parameter_terms", MAX_TERMS),
           (10, "trained_channels", MAX_CHANNELS))  # fmt: skip


@dataclass(slots=True)
class Tally:
    """How often an Op happened, and the sum of its element densities (share of non-zero error elements)."""

    count: int = 0
    density_sum: float = 0.0

    @property
    def density(self) -> float:
        """Mean share of non-zero elements in the error map of this Op."""
        return self.density_sum / self.count if self.count else 1.0


@dataclass
class Trace:
    """Operation record of a run, a step or an inference over `n_instances` streamed instances in `n_steps` steps."""

    tallies: dict[Op, Tally] = field(default_factory=dict)
    n_steps: int = 0
    n_instances: int = 0

    @classmethod
    def of(cls, ops: Iterable[Op], n_steps: int = 1, n_instances: int = 0) -> Trace:
        trace = cls(n_steps=n_steps, n_instances=n_instances)
        for op in ops:
            trace.add(op)
        return trace

    def add(self, op: Op, count: int = 1, density: float = 1.0) -> None:
        """Record that `op` happened `count` times with a mean element density."""
        tally = self.tallies.setdefault(op, Tally())
        tally.count += count
        tally.density_sum += count * density

    def __add__(self, other: Trace) -> Trace:
        total = Trace(n_steps=self.n_steps + other.n_steps, n_instances=self.n_instances + other.n_instances)
        for trace in (self, other):
            for op, tally in trace.tallies.items():
                total.add(op, tally.count, tally.density)
        return total

    def repeated(self, times: int) -> Trace:
        """The same record `times` times over."""
        total = Trace(n_steps=self.n_steps * times, n_instances=self.n_instances * times)
        for op, tally in self.tallies.items():
            total.add(op, tally.count * times, tally.density)
        return total

    def __iter__(self) -> Iterator[tuple[Op, Tally]]:
        return iter(self.tallies.items())

    def macs_by_phase(self) -> dict[str, int]:
        """Multiply-accumulates by report phase; a requantization counts one under `quantize`."""
        sums = dict.fromkeys(REPORT_PHASES, 0)
        for op, tally in self:
            sums[op.report_phase] += tally.count * op.macs
            sums[quantize_charged_to(op.payer, op.phase)] += tally.count * op.n_requantized
        return sums

    def macs(self) -> int:
        """All multiply-accumulates, requantizations included."""
        return sum(self.macs_by_phase().values())

    def bit_operations(self) -> int:
        """Sum of MACs x bits x bits of the two operands (float32 counts 32 x 32)."""
        return sum(t.count * (op.macs * _product_bits(op) + op.n_requantized * _requantize_bits(op)) for op, t in self)

    def to_json(self) -> dict[str, Any]:
        """Plain data: each layer and each set of widths once, then rows of indices."""
        layers = _Index()
        widths = _Index()
        rows = [
            [layers[op.layer], widths[op.widths], op.phase, op.payer, op.batch, op.kept_channels,
             op.trains, op.parameter_terms, tally.count, tally.density_sum,
             *((op.trained_channels,) if op.trained_channels else ())]
            for op, tally in self
        ]  # fmt: skip
        return {
            "n_steps": self.n_steps,
            "n_instances": self.n_instances,
            "layers": [dataclasses.asdict(layer) for layer in layers.items],
            "widths": [dataclasses.asdict(item) for item in widths.items],
            "rows": rows,
        }

    @classmethod
    def from_json(cls, data: Any) -> Trace:
        """Inverse of to_json. Raises HwmodelError naming the field that does not fit."""
        layers = [read_layer(row) for row in records.items(records.field(data, "layers", "trace"), "trace: layers")]
        rows = records.items(records.field(data, "widths", "trace"), "trace: widths")
        widths = [read_widths(row, f"trace: widths {i}") for i, row in enumerate(rows)]
        n_steps, n_instances = (
            records.whole(records.field(data, n, "trace"), f"trace: {n}") for n in ("n_steps", "n_instances")
        )
        trace = cls(n_steps=n_steps, n_instances=n_instances)
        for i, row in enumerate(records.items(records.field(data, "rows", "trace"), "trace: rows")):
            op, count, density_sum = _read_row(row, layers, widths, f"trace: row {i}")
            trace.add(op, count, density_sum / count)
        return trace


def read_layer(data: Any) -> Layer:
    """A Layer from its plain data."""
    return records.record(Layer, data, f"layer {shown(data.get('name') if isinstance(data, dict) else data)}")


def read_widths(data: Any, where: str) -> Widths:
    """Widths from their plain data. Runs of the first version said of errors, gradients and updates at once whether
    they are rounded stochastically."""
    if isinstance(data, dict) and isinstance(data.get("stochastic"), bool):
        data = data | {"stochastic": Widths().stochastic if data["stochastic"] else ()}
    return records.record(Widths, data, where)


def _read_row(data: Any, layers: list[Layer], widths: list[Widths], where: str) -> tuple[Op, int, float]:
    """(Op, how often it happened, sum of its densities) of one row."""
    row = records.items(data, where)
    if len(row) not in N_COLUMNS:
        raise HwmodelError(f"{where} has {len(row)} values, not {N_COLUMNS[0]} or {N_COLUMNS[1]}")
    row = [*row, 0][: N_COLUMNS[1]]
    layer = layers[records.whole(row[0], f"{where}: layer", 0, len(layers) - 1)]
    width = widths[records.whole(row[1], f"{where}: widths", 0, len(widths) - 1)]
    phase, payer, trains = (records.text(row[i], f"{where}: {name}") for i, name in _TEXTS)
    batch, kept, terms, chosen = (records.whole(row[i], f"{where}: {name}", 0, high) for i, name, high in _COUNTS)
    count = records.whole(row[8], f"{where}: count", 1)
    density_sum = records.number(row[9], f"{where}: density_sum", 0.0, count * (1 + ROUNDING))
    return Op(layer, width, phase, payer, batch, kept, trains, terms, chosen), count, density_sum


def _product_bits(op: Op) -> int:
    """Bits x bits of the two operands multiplied in a pass."""
    w = op.widths
    pairs = {
        "forward": (w.activation_bits, w.weight_bits),
        "error": (w.error_bits, error_weight_bits(op.layer, w)),
        "gradient": (w.stored_error_bits, w.activation_bits),
        "update": (w.master_bits, w.master_bits),
        "select": (w.stored_error_bits, 1),  # an accumulation: nothing is multiplied
        "rank": (0, 0),
        "thin": (w.stored_error_bits, w.stored_error_bits),  # its accumulation counted as its product with 1 / tau
    }
    first, second = pairs[op.phase]
    return first * second


def _requantize_bits(op: Op) -> int:
    """A requantization by a power of two shifts the accumulator and adds a rounding bit: one operand wide."""
    return op.widths.accumulator_bits


class _Index:
    """Numbers distinct values in order of first use."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._positions: dict[Any, int] = {}

    def __getitem__(self, item: Any) -> int:
        if item not in self._positions:
            self._positions[item] = len(self.items)
            self.items.append(item)
        return self._positions[item]
