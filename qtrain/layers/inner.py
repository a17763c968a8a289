"""Passes inside a step that train nothing: attacks and scores. Charged to payer "inner", without weight gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qtrain.layers.network import QuantizedNetwork
from qtrain.pruners import NoPruning

ERRORS = ".error"
"""How the names of the quantization points of errors end."""


class InnerPasses:
    """Freezes a network for passes that go back to its input.

    Inside `within` no layer trains, so that no weight gradient is computed or charged, error maps are not pruned, and
    the error maps' exponents are the inner passes' own: an attack's errors are of another size than training's.
    """

    def __init__(self) -> None:
        self.points: dict[str, Any] = {}

    @contextmanager
    def within(self, net: QuantizedNetwork) -> Iterator[None]:
        """Freeze `net` and thaw it."""
        points = {name: q for name, q in net.quantizers().items() if name.endswith(ERRORS)}
        outer = {name: q.state() for name, q in points.items()}
        trains = {unit.name: unit.trains for unit in net.units if hasattr(unit, "trains")}
        pruners = {unit.name: unit.pruner for unit in net.units if hasattr(unit, "pruner")}
        for name, point in points.items():
            point.load_state(self.points.get(name, {"amax": None, "exponent": None}))
        for unit in net.units:
            if hasattr(unit, "trains"):
                unit.trains = "none"
            if hasattr(unit, "pruner"):
                unit.pruner = NoPruning()
        try:
            yield
        finally:
            self.points = {name: q.state() for name, q in points.items()}
            for name, point in points.items():
                point.load_state(outer[name])
            for unit in net.units:
                if unit.name in trains:
                    unit.trains = trains[unit.name]
                if unit.name in pruners:
                    unit.pruner = pruners[unit.name]


@contextmanager
def unrecorded(net: QuantizedNetwork) -> Iterator[None]:
    """Passes made inside are not written down: measurements, not learning."""
    counts = net.counts
    net.counts = defaultdict(lambda: [0, 0.0])
    try:
        yield
    finally:
        net.counts = counts
