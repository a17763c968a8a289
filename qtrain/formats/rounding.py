"""Rounding rules: from a real number in units of the step to an integer."""

from __future__ import annotations

import torch
from torch import Tensor

from qtrain.formats.noise import NOISE_BITS, Stream, noise

ROUNDINGS = ("nearest-even", "nearest-away", "floor", "toward-zero", "stochastic")


def round_to_integer(x: Tensor, rounding: str, stream: Stream | None = None) -> Tensor:
    """Round every element of `x` (a fresh tensor, overwritten) to an integer of the same dtype.

    stochastic: sign(x) (floor |x| + (u < frac |x| 2^24)) with u from `stream`: unbiased to 2^-24, an integer stays
    itself, and -x rounds to the negative of what x does (Gupta et al. 2015, "Deep Learning with Limited Numerical
    Precision", section 3). The fraction of a magnitude is exact in floating point; x - floor(x) is not below zero.
    """
    if rounding == "nearest-even":
        return x.round_()
    if rounding == "floor":
        return x.floor_()
    if rounding == "toward-zero":
        return x.trunc_()
    if rounding == "nearest-away":
        magnitude = x.abs()
        whole = magnitude.floor()
        return whole.add_((magnitude - whole >= 0.5).to(x.dtype)).copysign_(x)
    if rounding != "stochastic":
        raise ValueError(f"unknown rounding {rounding!r} (valid: {', '.join(ROUNDINGS)})")
    if stream is None:
        raise ValueError("stochastic rounding needs a noise stream")
    u = noise(x.shape, stream, x)
    fraction = x.abs()
    whole = fraction.floor()
    fraction.sub_(whole).mul_(float(1 << NOISE_BITS))
    return whole.add_(torch.lt(u, fraction)).copysign_(x)
