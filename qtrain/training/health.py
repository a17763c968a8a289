"""Numerics health: what each quantization point loses, looked at in one step out of many, and overflowing sums."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from qtrain.formats.fixed import MIN_EXPONENT
from qtrain.layers import QuantizedNetwork

SATURATED_LIMIT = 0.05
"""Share of clipped values worth a warning: a delayed exponent clips a few after a jump, not one in twenty."""
SQNR_LIMIT_DB = 3.0
"""Below this the rounding noise has more than half the power of the signal."""
MAX_EXPONENT = 30
"""A step of 2^30 between neighbouring values: no activation, error or weight of a network that learns is so large."""
MORE_BITS = 2
"""What a warning suggests to add: 12 dB, four times finer steps."""


class NumericsHealth:
    """Saturated and flushed shares, signal-to-quantization-noise ratio and exponents of every point of a network."""

    def __init__(self, net: QuantizedNetwork) -> None:
        self.net = net
        self.rows: dict[str, list[dict[str, float]]] = {}
        self.overflowed: list[str] = []  # layers and passes that a line was given for

    def watch(self) -> None:
        """Look at the next step."""
        for point in self.net.quantizers().values():
            point.monitor = deque()

    def collect(self, step: int) -> list[str]:
        """Take down what the watched `step` showed, and stop looking; a line for each exponent out of bounds, and for
        each pass whose sums have begun to overflow."""
        lines = self._overflowing()
        for name, point in self.net.quantizers().items():
            if point.monitor:
                seen = point.monitor[-1]
                self.rows.setdefault(name, []).append({"step": step, **seen})
                lines += self._out_of_bounds(name, seen)
            point.monitor = None
        return lines

    def _overflowing(self) -> list[str]:
        """One line a layer and pass, the first time that it is seen."""
        lines = []
        for row in self.overflows():
            place = f"{row['layer']} {row['pass']}"
            if place not in self.overflowed:
                self.overflowed.append(place)
                lines.append(
                    f"{place}: sums overflow the {row['bits']}-bit accumulator ({row['mode']}): "
                    f"try --accumulator-bits {row['needed_bits']}"
                )
        return lines

    def overflows(self) -> list[dict[str, Any]]:
        """A row a layer and pass with sums, of all training steps, that its accumulator could not hold: layer, pass,
        bits, mode, how many, and the bits the largest needed."""
        return [
            {"layer": layer, "pass": which, "bits": a.bits, "mode": a.mode, "overflows": n,
             "needed_bits": a.needed_bits[which]}
            for layer, a in self.net.accumulators().items() for which, n in a.overflows.items()
        ]  # fmt: skip

    def _out_of_bounds(self, name: str, seen: dict[str, float]) -> list[str]:
        """At most one line a point and end of the range, whenever it is reached."""
        place = " ".join(name.rsplit(".", 1))
        if seen["exponent"] > MAX_EXPONENT:
            return [f"{place}: exploding, its exponent rose above {MAX_EXPONENT}: lower --lr"]
        if seen["exponent"] <= MIN_EXPONENT and seen["signal"] > 0:
            return [f"{place}: vanishing, its exponent fell to {MIN_EXPONENT}, the least there is: raise --lr"]
        return []

    def report(self) -> list[dict[str, Any]]:
        """A row a point: layer, role, bits, mean shares, SQNR in dB (None without noise), exponents over steps."""
        points = self.net.quantizers()
        return [self._row(name, points[name].format.bits, seen) for name, seen in self.rows.items()]

    def _row(self, name: str, bits: int, seen: list[dict[str, float]]) -> dict[str, Any]:
        layer, _, role = name.rpartition(".")
        signal, noise = sum(s["signal"] for s in seen), sum(s["noise"] for s in seen)
        return {
            "layer": layer,
            "role": role,
            "bits": bits,
            "saturated": sum(s["saturated"] for s in seen) / len(seen),
            "zeroed": sum(s["zeroed"] for s in seen) / len(seen),
            "sqnr_db": 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None,
            "exponents": [[s["step"], s["exponent"]] for s in seen],
        }

    def warnings(self) -> list[str]:
        """One line for each point that clips too much or drowns in its own rounding noise, and each pass whose sums
        overflow."""
        lines = self._overflowing()
        for row in self.report():
            place = f"{row['layer']} {row['role']}"
            if row["saturated"] > SATURATED_LIMIT:
                lines.append(
                    f"{place}: {100 * row['saturated']:.0f} % saturated at {row['bits']} bits: try --scale dynamic"
                )
            elif row["sqnr_db"] is not None and row["sqnr_db"] < SQNR_LIMIT_DB:
                lines.append(
                    f"{place}: {100 * row['zeroed']:.0f} % flushed to zero, {row['sqnr_db']:.0f} dB signal to noise at "
                    f"{row['bits']} bits: try {row['bits'] + MORE_BITS}"
                )
        return lines

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"rows": self.rows, "overflowed": self.overflowed}

    def load_state(self, state: dict[str, Any]) -> None:
        self.rows = {name: list(rows) for name, rows in state["rows"].items()}
        self.overflowed = list(state["overflowed"])
