"""A quantization point: the exponent it chooses, and the codes it stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from qtrain.reference.layout import Node
from qtrain.reference.noise import Place
from qtrain.reference.numbers import Stored, Wide, to_grid, value

LEAST_EXPONENT = -100
CHANNELS_APART = 8
"""How far below the largest of a layer's exponents those of its channels reach."""
KEPT = 0.9
SHARE_REPRESENTED = 0.9999
KIND = {"output": "activation", "weight": "weight", "scale": "weight", "shift": "weight", "error": "error"}
"""Whose rounding and exponent rule a point follows; every other point is a gradient's."""
PASS_ON = ("maxpool", "avgpool", "shortcut", "fork")
"""Kinds whose output is signed or unsigned as their input is."""


def smallest_exponent(largest_code: int, amax: Fraction) -> int:
    """The smallest e >= LEAST_EXPONENT with largest_code 2^e >= amax."""
    if amax == 0:
        return LEAST_EXPONENT
    need = amax / largest_code
    e = need.numerator.bit_length() - need.denominator.bit_length() - 1
    while value(1, e) < need:
        e += 1
    return max(e, LEAST_EXPONENT)


@dataclass
class Point:
    """One place where numbers are rounded; `amax` is what the next step's exponent is taken from."""

    name: str
    bits: int
    signed: bool
    rounding: str
    scale: str
    seed: int
    amax: Fraction | None = None
    exponents: list[int] = field(default_factory=list)

    @property
    def largest(self) -> int:
        return 2 ** (self.bits - 1) - 1 if self.signed else 2**self.bits - 1

    def store(self, x: Wide, step: int, cap: int | None, rows: NDArray[np.int64] | None) -> Stored:
        """Round `x` with this step's noise. `cap` is the largest value stored; `rows` as in `Place.draw`."""
        exponent = self._choose(x, cap)
        if cap is not None:
            x = _capped(x, cap)
        noise = None
        if self.rounding == "stochastic":
            noise = Place(self.seed, step, self.name).draw(x.codes.shape, rows)
        lowest = -self.largest if self.signed else 0
        return Stored(to_grid(x, exponent, lowest, self.largest, self.rounding, noise), exponent)

    def _choose(self, x: Wide, cap: int | None) -> int:
        seen = self._largest_seen(x)
        if cap is not None:
            seen = min(seen, Fraction(cap))
        if seen == 0:
            self.exponents.append(smallest_exponent(self.largest, self.amax or seen))
            return self.exponents[-1]
        used = seen
        if self.amax is not None and self.scale in ("delayed", "static"):
            used = self.amax
        elif self.amax is not None and self.scale == "moving-average":
            used = Fraction(KEPT * float(self.amax) + (1 - KEPT) * float(seen))
        if self.scale != "static" or self.amax is None:
            self.amax = used if self.scale == "moving-average" else seen
        self.exponents.append(smallest_exponent(self.largest, used))
        return self.exponents[-1]

    def _largest_seen(self, x: Wide) -> Fraction:
        if self.scale == "percentile":
            magnitudes = np.ldexp(np.abs(x.codes).astype(np.float64), x.exponent).ravel()
            rank = max(1, round(SHARE_REPRESENTED * magnitudes.size))
            return Fraction(float(np.partition(magnitudes, rank - 1)[rank - 1]))
        codes = abs(x.codes) if self.signed else np.maximum(x.codes, 0)
        if np.ndim(x.exponent) == 0:
            return value(int(codes.max(initial=0)), int(x.exponent))
        grids = np.broadcast_to(x.exponent, codes.shape)
        return max(value(int(codes[grids == grid].max()), int(grid)) for grid in np.unique(grids))


def store_channels(point: Point, x: Wide, step: int) -> Stored:
    """Round weights [K, ...] (one exponent) on each output channel's own grid."""
    peaks = abs(x.codes).reshape(len(x.codes), -1).max(axis=1)
    exponents = np.array([smallest_exponent(point.largest, value(int(peak), int(x.exponent))) for peak in peaks])
    exponents = np.maximum(exponents, exponents.max() - CHANNELS_APART)
    exponents = exponents.reshape(-1, *[1] * (x.codes.ndim - 1))
    noise = None
    if point.rounding == "stochastic":
        noise = Place(point.seed, step, point.name).draw(x.codes.shape)
    return Stored(to_grid(x, exponents, -point.largest, point.largest, point.rounding, noise), exponents)


def _capped(x: Wide, cap: int) -> Wide:
    """min(x, cap), on grids that hold the cap."""
    grid = np.minimum(x.exponent, 0)
    codes = x.codes << (x.exponent - grid)
    return Wide(np.minimum(codes, np.int64(cap) << np.minimum(-grid, 55)), grid)


class Points:
    """Every quantization point of a network, by "layer.role", made when first used."""

    def __init__(self, nodes: list[Node], seed: int) -> None:
        self.seed, self.last = seed, nodes[-2].name
        self.by_name: dict[str, Point] = {}
        self.unsigned: dict[str, bool] = {}
        for node in nodes:
            positive = node.layer.activation in ("relu", "relu6")
            self.unsigned[node.name] = self.unsigned[node.layer.inputs[0]] if node.layer.kind in PASS_ON else positive

    def store(
        self, node: Node, role: str, x: Wide, step: int, cap: int | None, rows: NDArray[np.int64] | None
    ) -> Stored:
        """Round `x` at the point of `node` in `role`; `rows` are the instances' positions in the whole batch."""
        name = f"{node.name}.{role}"
        if name not in self.by_name:
            self.by_name[name] = self._make(node, role, name)
        if role == "weight" and node.per_channel:
            return store_channels(self.by_name[name], x, step)
        return self.by_name[name].store(x, step, cap, rows if role in ("output", "error") else None)

    def _make(self, node: Node, role: str, name: str) -> Point:
        w, kind = node.widths, KIND.get(role, "gradient")
        logits = node.name == self.last and role == "output"
        bits = {
            "output": w.norm_bits if node.layer.normalized or logits else w.activation_bits,
            "weight": w.weight_bits,
            "scale": w.gamma_bits,
            "shift": w.beta_bits,
            "error": w.error_bits,
        }.get(role, w.gradient_bits)
        scale = node.scales[kind]
        own = (role == "error" and node.layer.kind == "loss") or (logits and scale == "delayed")
        return Point(
            name, bits, signed=role != "output" or not self.unsigned[node.name],
            rounding=node.roundings[kind], scale="dynamic" if own else scale, seed=self.seed,
        )  # fmt: skip
