"""What a forward pass leaves for its backward pass, and the context both run in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from qtrain.layers.quantizer import Clock


@dataclass(slots=True)
class Tape:
    """One forward pass: the clock and rows its noise is keyed by, who pays, and each layer's saved tensors."""

    clock: Clock
    rows: Tensor | None = None
    payer: str = "main"
    training: bool = True  # batch statistics, exponents learned
    averaged: bool = False  # the error holds the batch mean's 1/n, as in float32 (qtrain.layers.loss)
    saved: dict[str, Any] = field(default_factory=dict)
    narrowed: Tensor | None = None  # the instances going back, where not all do
    pruned: dict[str, tuple[int, float]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()  # layers not computed: stochastic depth
    out_shape: tuple[int, ...] = ()  # of an instance's output before it is flattened to logits

    def save(self, name: str, per_instance: tuple[Any, ...], *others: Any) -> None:
        """Keep what a layer needs to go back: tensors with one row an instance (or None), and anything else."""
        self.saved[name] = (per_instance, others)

    def take(self, name: str) -> tuple[Any, ...]:
        """What the layer saved, which is then forgotten: the tensors first, the rest behind."""
        per_instance, others = self.saved.pop(name)
        return (*per_instance, *others)

    def narrow(self, keep: Tensor) -> None:
        """Go back with the instances `keep` (int64 positions in this batch) alone."""
        self.narrowed = keep
        self.rows = keep if self.rows is None else self.rows[keep]
        for name, (per_instance, others) in self.saved.items():
            self.saved[name] = (tuple(None if t is None else t[keep] for t in per_instance), others)

    def note(self, name: str, kept_channels: int, density: float) -> None:
        """Remember what pruning left of a layer's error map: whole channels, and the share of non-zero elements."""
        self.pruned[name] = (kept_channels, density)
