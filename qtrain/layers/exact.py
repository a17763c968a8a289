"""Are a layer's sums exact in the floats that carry them? Certificates, and what to do where there is none.

Integers are exact in float32 while every partial sum stays within 2^24 (float64: 2^53), in any order of summation.
Bounds on every partial sum, in codes: forward and input error, the largest L1 norm of the weights that meet in one sum
times the largest code of the other operand; weight gradient, Cauchy-Schwarz: |sum d x| <= |d| |x|. Bounds are tried
from the cheapest: widths alone, then weights, then data.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from hwmodel.operations import ALIGNMENT_BITS
from qtrain.engine import channels
from qtrain.formats.fixed import CARRIER_BITS, FixedTensor
from qtrain.layers.probe import convolution_is_exact

WIDEST = {torch.float32: 8, torch.float64: 16}
"""Bits of the widest codes each carrier is chosen for."""
SLACK = 1 - 2.0**-10
"""Norms are themselves sums in floats: their relative error stays far below this."""
_SAFE_POWER = 32
"""Codes times a power of two this close to 1 have squares, and sums of them, far from float32's ends."""
MOST_PARTS = 16
"""Beyond this many parts of the batch one float64 pass costs less."""

CARRIER, FLOAT64, INEXACT = "carrier", "float64", "not exact"
"""How a pass was kept exact: in the carrier, under a certificate; in float64, for lack of one. INEXACT: it was not, its
operands are no fixed point."""


def limit(dtype: torch.dtype) -> float:
    """What no partial sum may exceed."""
    return 2.0 ** CARRIER_BITS[dtype]


def largest(x: FixedTensor) -> float:
    """The largest |code| in a tensor."""
    if not x.values.numel():
        return 0.0
    low, high = torch.aminmax(x.values)
    return max(float(high), -float(low)) * math.ldexp(1.0, -(x.exponent or 0))


def adds_exactly(x: Tensor) -> bool:
    """Whether this machine's sums of integers in the dtype of `x` are exact within its limit."""
    return x.dtype != torch.float32 or convolution_is_exact(x.device.type)


def sums_bound(
    weight: Tensor, units: Tensor | float, operand: FixedTensor, groups: int, top: float, bias: Tensor | None = None,
    *, transposed: bool = False,
) -> float:  # fmt: skip
    """What no partial sum of the codes of `weight` [K, C / groups, ...], in `units`, times those of `operand`, plus
    `bias` [K] (in the sums' values), exceeds: the first bound below `top`, from the cheapest on, else the last.
    `transposed`: sums over output channels, as in the input error. Units are one for all or, of each sum's channels,
    [K] (transposed: [groups])."""
    signed_max = 2 ** (WIDEST[weight.dtype] - 1)
    operand_max = signed_max if transposed else 2 * signed_max  # errors are signed
    added = 0.0
    if bias is not None:
        added = float((bias.abs() / units).max()) * math.ldexp(1.0, -(operand.exponent or 0))
    per_sum = weight.shape[0] // groups * weight[0, 0].numel() if transposed else weight[0].numel()
    aligned = 2**ALIGNMENT_BITS if transposed and isinstance(units, Tensor) else 1
    bound = per_sum * signed_max * aligned * operand_max + added
    if bound < top:
        return bound
    magnitude = weight.abs()
    if transposed:
        magnitude = magnitude.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(2)
    narrow = per_sum * signed_max * aligned < limit(weight.dtype)  # exact without a pass that widens
    rows = magnitude.flatten(-1 if transposed else 1)
    norms = rows.sum(-1, dtype=None if narrow else torch.float64).double()  # [groups, C / groups...] or [K]
    norm = float((norms.movedim(0, -1) / units).max())
    bound = norm * operand_max + added
    return bound if bound < top else norm * largest(operand) + added


def gradient_parts(error: FixedTensor, x: FixedTensor, groups: int) -> list[tuple[int, int]]:
    """Ranges of instances whose weight gradients are each exact; usually one, the batch. None: `[]`, not even a split
    into MOST_PARTS helps.

    error [n, K, ...] and x [n, C, ...] meet in the gradient's products.
    """
    delta, source = error.values, x.values
    n, top = len(delta), limit(delta.dtype)
    if delta.dtype == torch.float32 and not convolution_is_exact(delta.device.type):
        return []
    pixels = delta[0].numel() // delta.shape[1] if n else 0
    if n * pixels * 2 ** (2 * WIDEST[delta.dtype] - 1) < top:
        return [(0, n)]
    (left, most_left), (right, most_right) = _squares(error), _squares(x)
    if math.sqrt(most_left * most_right) < top * SLACK:
        return [(0, n)]
    paired = groups > 1 and groups == source.shape[1]  # depthwise: an output channel meets one input channel
    if paired:
        right = right.repeat_interleave(delta.shape[1] // groups, 1)
    parts = 1
    while parts <= min(n, MOST_PARTS):
        edges = [round(i * n / parts) for i in range(parts + 1)]
        ranges = list(itertools.pairwise(edges))
        sums = [(left[a:b].sum(0), right[a:b].sum(0)) for a, b in ranges]
        worst = max(float((p * q).max() if paired else p.max() * q.max()) for p, q in sums)
        needed = math.sqrt(worst) / (top * SLACK)
        if needed < 1:
            return ranges
        parts = max(parts + 1, math.ceil(parts * needed))
    return []


def bias_bound(error: Tensor) -> float:
    """What the bias gradient, a plain sum of error codes, never exceeds whatever they are."""
    return error.numel() // error.shape[1] * 2 ** (WIDEST[error.dtype] - 1)


def _squares(x: FixedTensor) -> tuple[Tensor, float]:
    """Sum of the codes' squares of every instance and channel, float64 [n, C], and the largest channel's in all."""
    inverse = math.ldexp(1.0, -(x.exponent or 0))  # codes: squares of tiny values would vanish
    if (squares := channels.squares(x.values, inverse)) is not None:
        return squares
    safe = 2.0**-_SAFE_POWER <= inverse <= 2.0**_SAFE_POWER
    codes = (x.values if safe else x.values * inverse).square()
    sums = (codes if codes.dim() == 2 else codes.sum((2, 3))).double()
    sums = sums * inverse**2 if safe else sums
    return sums, float(sums.sum(0).max())
