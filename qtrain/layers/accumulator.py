"""The accumulator of a layer's sums: how wide it is, and what becomes of a sum that it can't hold.

The simulator's sums are exact; an accumulator of b bits is applied to the finished sum (ARITHMETIC.md, section 3):
wrap      modulo 2^b into -2^(b-1) .. 2^(b-1) - 1, as two's complement does whatever the order of the sum;
saturate  the nearest end of that range.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qtrain.formats.tiled import in_memory_order

MODES = ("wrap", "saturate")


class Accumulator:
    """`bits` wide, of a mode of MODES; counts, by pass, the sums it could not hold and the bits they asked for."""

    def __init__(self, bits: int, mode: str) -> None:
        self.bits, self.mode = bits, mode
        self.overflows: dict[str, int] = {}
        self.needed_bits: dict[str, int] = {}

    @property
    def limit(self) -> float:
        """Sums below it in size are held."""
        return math.ldexp(1.0, self.bits - 1)

    @property
    def bias_max(self) -> float:
        """The largest bias, in units of the products' step: half the accumulator is left for the products."""
        return math.ldexp(1.0, min(self.bits, 32) - 2)

    def hold(self, sums: Tensor, unit: Tensor | float, which: str, bound: float, *, count: bool = True) -> Tensor:
        """What the accumulator holds of exact `sums`, codes x `unit` (a power of two, or a tensor of them that
        broadcasts); same shape and dtype. Nothing is looked at where `bound`, of their codes, proves that all fit."""
        if bound < self.limit or not sums.numel():
            return sums
        codes = in_memory_order(sums)
        low, high = torch.aminmax(codes if isinstance(unit, float) else sums.double() / unit)
        scale = unit if isinstance(unit, float) else 1.0
        if -self.limit <= float(low) / scale and float(high) / scale <= self.limit - 1:
            return sums
        codes = sums.double() / unit
        if count:
            self._count(codes, which)
        if self.mode == "wrap":
            codes -= torch.floor((codes + self.limit) / (2 * self.limit)) * (2 * self.limit)
        else:
            codes.clamp_(-self.limit, self.limit - 1)
        return codes.mul_(unit).to(sums.dtype)

    def _count(self, codes: Tensor, which: str) -> None:
        beyond = int(((codes >= self.limit) | (codes < -self.limit)).sum())
        self.overflows[which] = self.overflows.get(which, 0) + beyond
        needed = int(max(float(codes.max()), -1 - float(codes.min()))).bit_length() + 1
        self.needed_bits[which] = max(self.needed_bits.get(which, 0), needed)

    def state(self) -> dict[str, dict[str, int]]:
        """What a checkpoint must hold."""
        return {"overflows": dict(self.overflows), "needed_bits": dict(self.needed_bits)}

    def load_state(self, state: dict[str, dict[str, int]]) -> None:
        self.overflows, self.needed_bits = dict(state["overflows"]), dict(state["needed_bits"])
