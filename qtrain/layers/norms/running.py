"""Running statistics: integer codes of one exponent a tensor, carried by the module's float buffers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from qtrain.formats.fixed import FixedPoint
from qtrain.formats.integers import shift_round

RUNNING_SHARE = 0.1
"""Share of the batch's statistics entering the running ones (PyTorch's default momentum)."""
SHARE_BITS = 16


def share_of(module: Any) -> float:
    """What of the batch's statistics enters the running ones."""
    return RUNNING_SHARE if module.momentum is None else float(module.momentum)


def settle(running: Tensor, fmt: FixedPoint) -> None:
    """Round what the buffer holds to codes of `fmt`."""
    with torch.no_grad():
        exponent = fmt.exponent_for(float(running.abs().max()))
        running.copy_(fmt.quantize(running.double(), exponent))


def blend(running: Tensor, fmt: FixedPoint, batch: Tensor, exponent: int, share: float) -> None:
    """running <- (1 - share) running + share batch 2^exponent, as codes of `fmt` on one grid for all channels."""
    amax = max(float(running.abs().max()), math.ldexp(int(batch.abs().max()), exponent))
    grid = fmt.exponent_for(amax)
    weight = round(share * 2**SHARE_BITS)
    old = (running.double() * math.ldexp(1.0, SHARE_BITS - grid) + 0.5).floor().long()
    new = shift_round(batch, min(max(grid - SHARE_BITS - exponent, -62), 62))
    codes = shift_round(old * (2**SHARE_BITS - weight) + new * weight, 2 * SHARE_BITS)
    running.copy_(codes.double() * math.ldexp(1.0, grid))


def in_steps(running: Tensor, exponent: int, fraction_bits: int) -> Tensor:
    """The buffer in units of 2^exponent with so many fraction bits, int64."""
    return (running.double() * math.ldexp(1.0, fraction_bits - exponent)).round().long()
