"""The update by shifts (Wang et al. 2020, "NITI: Training Integer Neural Networks Using Integer-only Arithmetic")."""

from __future__ import annotations

import math

from torch import Tensor

from hwmodel.operations import Widths
from qtrain.formats.fixed import FixedPoint


def power(rate: float) -> int:
    """The exponent of the power of two nearest to `rate`."""
    mantissa, exponent = math.frexp(rate)
    return exponent if mantissa >= 0.75 else exponent - 1


def shifted(w: Tensor, gradient: Tensor, exponent: int, rate: float, widths: Widths) -> Tensor:
    """w - 2^k g in codes, before it is rounded, float64; the master lies on 2^exponent. The gradient's own exponent is
    left out of account, so that it fills its width whatever its size; zeros, or a rate of 0, leave w as it is."""
    amax = float(gradient.abs().max())
    if not rate or not amax:
        return w.double()
    own = FixedPoint(widths.gradient_bits).exponent_for(amax)
    place = exponent - own + power(rate) + widths.master_bits - widths.gradient_bits
    return w.double() - gradient.double() * math.ldexp(1.0, place)
