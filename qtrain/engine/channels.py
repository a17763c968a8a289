"""Passes over whole error maps, channel by channel: the pruners' gather and the certificates' sums."""

from __future__ import annotations

import torch
from torch import Tensor

from qtrain.engine import kernels_for
from qtrain.engine.points import Placed


def gather(x: Tensor, channels: Tensor) -> Tensor:
    """x[:, channels] of x [n, C, H, W] in the layout of x, in one pass; channels int64 [C']."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    library = kernels_for(x)
    if library is None or not len(channels):
        return x[:, channels].contiguous(memory_format=layout)
    placed = Placed(x, None, False)
    out = torch.empty((x.shape[0], len(channels), *x.shape[2:]), dtype=x.dtype, memory_format=layout)
    run = library.qt_gather_f32 if x.dtype == torch.float32 else library.qt_gather_f64
    run(placed.x.data_ptr(), out.data_ptr(), channels.data_ptr(), len(channels), placed.at)
    return out


def squares(x: Tensor, factor: float) -> tuple[Tensor, float] | None:
    """Sum of (factor x)^2 of every instance and channel of x [n, C, H, W], float64 [n, C], to float32's precision, and
    the largest of a channel over all instances; None where the kernels do not apply."""
    library = kernels_for(x)
    if library is None or x.dtype != torch.float32 or x.dim() != 4:
        return None
    placed = Placed(x, None, False)
    out = torch.empty(x.shape[:2], dtype=torch.float64)
    largest = library.qt_squares(placed.x.data_ptr(), factor, out.data_ptr(), placed.at)
    return out, largest
