"""The number plan: which format, rounding and scale rule each role of each layer gets."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hwmodel.operations import Widths


@dataclass(frozen=True)
class NumberPlan:
    """Numbers of a training run.

    `rounding` is that of errors, weight gradients and updates (weights, activations and normalization inputs round to
    nearest even). `scale` is the exponent rule of activations and errors; weights and gradients, known as a whole
    before they are stored, always take their own maximum. `layers` overrides single widths by layer-name glob.
    """

    name: str = "fixed"
    widths: Widths = Widths()  # noqa: RUF009 - Widths is frozen
    rounding: str = "stochastic"
    scale: str = "delayed"
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def fixed(cls, bits: int = 8, **changes: object) -> NumberPlan:
        """Fixed point everywhere: weights, activations, errors and gradients at `bits`; 32 means float32."""
        return cls(
            name="float32" if bits == 32 else "fixed",
            widths=Widths.uniform(bits),
            **changes,  # type: ignore[arg-type]
        )

    @classmethod
    def float32(cls) -> NumberPlan:
        """Plain float32: the simulator then computes exactly what PyTorch computes."""
        return cls(name="float32", widths=Widths.uniform(32))

    @property
    def floating(self) -> bool:
        return self.widths.floating

    def for_layer(self, name: str) -> Widths:
        """Widths of the layer `name`: the plan's, changed by every matching glob in order."""
        widths = self.widths
        for pattern, changes in self.layers.items():
            if fnmatch.fnmatchcase(name, pattern):
                widths = dataclasses.replace(widths, **changes)
        return widths
