"""Passes inside a step that train nothing: attacks and scores. Charged to payer "inner", without weight gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qtrain.formats.fixed import FixedTensor
from qtrain.layers import QuantizedNetwork
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


@dataclass(frozen=True)
class Attack:
    """Projected gradient descent in the L-infinity norm (Madry et al. 2018): `n_steps` steps of the sign of the input's
    error, each of `step` and together within `epsilon` of the clean pixel, between `low` and `high`; all four are
    tensors [C, 1, 1] in the standardized units the network reads. It starts at the clean image."""

    epsilon: Tensor
    step: Tensor
    low: Tensor
    high: Tensor
    n_steps: int

    def __call__(
        self,
        net: QuantizedNetwork,
        inner: InnerPasses,
        images: Tensor,
        error_at: Callable[[FixedTensor], Tensor],
        rows: Tensor,
        n_rows: int,
        start: Tensor | None = None,
    ) -> Tensor:
        """Images [n, C, H, W] changed so that the loss grows whose gradient at the outputs is `error_at` (loss in
        float, its gradient quantized as an error). `rows` of the `n_rows` of the step key the rounding noise; `start`,
        if given, replaces the clean images as the first guess."""
        low = torch.maximum(images - self.epsilon, self.low)
        high = torch.minimum(images + self.epsilon, self.high)
        changed = images if start is None else torch.clamp(start, low, high)
        with inner.within(net):
            for i in range(self.n_steps):
                outputs, tape = net.run(changed, rows=rows + i * n_rows, payer="inner", training=False)
                error = net.logit_error(error_at(outputs), tape)
                slope = net.run_back(tape, error, to_input=True)
                assert slope is not None
                changed = torch.clamp(changed + self.step * slope.sign().to(changed.dtype), low, high)
        return changed


def linf_attack(material: Any, epsilon: float, step_size: float, n_steps: int) -> Attack:
    """The attack on the images of `material`, `epsilon` and `step_size` in pixels of which 255 is 1."""
    return Attack(epsilon * material.deviation, step_size * material.deviation, material.low, material.high, n_steps)
