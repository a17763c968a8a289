"""SGD with momentum and weight decay on integers; sums wider than a float64's 53 bits are rounded to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qtrain.reference.layout import Sgd
from qtrain.reference.noise import Place
from qtrain.reference.numbers import Stored, Wide, add, nearest_even, to_grid, value
from qtrain.reference.points import smallest_exponent

CONSTANT_BITS = 16
SUM_BITS = 53


def constant(x: float) -> tuple[int, int]:
    """x as a 16-bit mantissa and an exponent."""
    if x == 0:
        return 0, 0
    mantissa, exponent = math.frexp(x)
    return round(mantissa * 2**CONSTANT_BITS), exponent - CONSTANT_BITS


def times(x: Wide, factor: tuple[int, int]) -> Wide:
    """x times a constant, to 53 bits."""
    codes = x.codes
    if int(abs(codes).max(initial=0)).bit_length() + CONSTANT_BITS + 1 > 62:
        codes = codes.astype(object)
    return fitted(Wide(codes * factor[0], int(x.exponent) + factor[1]))


def fitted(x: Wide) -> Wide:
    """Every code rounded to nearest even at 53 significant bits."""
    if int(abs(x.codes).max(initial=0)).bit_length() <= SUM_BITS:
        return x
    flat = []
    for code in x.codes.ravel().tolist():
        extra = max(abs(code).bit_length() - SUM_BITS, 0)
        flat.append(int(nearest_even(np.array(code, dtype=object), extra)) << extra)
    return Wide(np.array(flat, dtype=object).reshape(x.codes.shape), x.exponent)


@dataclass
class Parameter:
    """One parameter's stored numbers: the master, its largest exponent so far, and the momentum."""

    name: str
    master: Stored
    master_bits: int
    momentum_bits: int
    rounding: str
    seed: int
    momentum: Stored | None = None

    def update(self, gradient: Stored, batch_scale: float, sgd: Sgd, step: int) -> None:
        """v <- mu v + s g + d w, rounded where kept; w <- w - eta v, rounded."""
        w = Wide(self.master.codes, self.master.exponent)
        v = times(Wide(gradient.codes, gradient.exponent), constant(batch_scale))
        if sgd.momentum and self.momentum is not None:
            v = fitted(add(times(Wide(self.momentum.codes, self.momentum.exponent), constant(sgd.momentum)), v))
        if sgd.weight_decay:
            v = fitted(add(v, times(w, constant(sgd.weight_decay))))
        if sgd.momentum:
            self.momentum = self._round(v, self.momentum_bits, None, "momentum", step)
            v = Wide(self.momentum.codes, self.momentum.exponent)
        rate, exponent = constant(sgd.lr)
        stepped = fitted(add(w, times(v, (-rate, exponent))))
        self.master = self._round(stepped, self.master_bits, self.master.exponent, "master", step)

    def shift(self, gradient: Stored, bits: int, rate: float, step: int) -> None:
        """Codes of `bits`, as large as they may be, times the power of two nearest to the rate, taken from the
        master's codes, which are rounded and saturate. Exponents play no part; zeros change nothing."""
        amax = int(abs(gradient.codes).max(initial=0))
        if not amax:
            return
        own = smallest_exponent(2 ** (bits - 1) - 1, value(amax, gradient.exponent))
        numerator, denominator = rate.as_integer_ratio()
        e = numerator.bit_length() - denominator.bit_length()
        e -= rate < 2.0**e  # 2^e <= rate < 2^(e+1)
        e += rate >= 1.5 * 2.0**e
        place = gradient.exponent - own + e + self.master_bits - bits
        moved = add(Wide(self.master.codes, 0), Wide(-gradient.codes, place))
        noise = None
        if self.rounding == "stochastic":
            noise = Place(self.seed, step, f"main.{self.name}.master").draw(moved.codes.shape)
        largest = 2 ** (self.master_bits - 1) - 1
        codes = to_grid(moved, 0, -largest, largest, self.rounding, noise)
        self.master = Stored(codes, self.master.exponent)

    def _round(self, x: Wide, bits: int, least: int | None, role: str, step: int) -> Stored:
        largest = 2 ** (bits - 1) - 1
        exponent = smallest_exponent(largest, value(int(abs(x.codes).max(initial=0)), int(x.exponent)))
        if least is not None:
            exponent = max(exponent, least)
        noise = None
        if self.rounding == "stochastic":
            noise = Place(self.seed, step, f"main.{self.name}.{role}").draw(x.codes.shape)
        return Stored(to_grid(x, exponent, -largest, largest, self.rounding, noise), exponent)
