"""The optimizer's update of one parameter through the compiled kernels."""

from __future__ import annotations

import ctypes
import math
from ctypes import c_double, c_int32

import torch
from torch import Tensor

from qtrain.engine import kernels_for
from qtrain.engine.library import Point, threads_for
from qtrain.engine.points import COMPILED_ROUNDINGS, Placed
from qtrain.formats.fixed import FixedPoint


class Terms(ctypes.Structure):
    """Constants and results of an update, as in kernels/update.cpp."""

    _fields_ = [
        ("scale", c_double), ("momentum", c_double), ("decay", c_double), ("rate", c_double),
        ("has_velocity", c_int32), ("rounds_velocity", c_int32), ("least", c_int32),
        ("velocity_exponent", c_int32), ("finite", c_int32),
    ]  # fmt: skip


def update(
    w: Tensor, grad: Tensor, velocity: Tensor | None, terms: Terms, formats: tuple[FixedPoint, FixedPoint],
    rounding: str, keys: tuple[int, int],
) -> Tensor | None:  # fmt: skip
    """Update `w` in place by `terms`, which gets the new exponents; returns the velocity (a new tensor where there was
    none). None: the kernels do not apply and nothing was done.

    formats and keys (of the noise): master's, momentum's.
    """
    library = kernels_for(w)
    if library is None or w.dtype != torch.float32 or rounding not in COMPILED_ROUNDINGS:
        return None
    place = Placed(w, None, rounding == "stochastic")
    if place.x is not w:
        return None
    layout = torch.channels_last if place.last else torch.contiguous_format
    g = grad.to(torch.float32).contiguous(memory_format=layout)
    v = torch.empty_like(w) if velocity is None else velocity.contiguous(memory_format=layout)
    work = torch.empty(w.numel(), dtype=torch.float64)
    stochastic = rounding == "stochastic"
    index = None if place.index is None else place.index.data_ptr()
    master, momentum = (
        Point(1.0, 1.0, f.min_code, f.max_code, math.inf, None, index, place.n_rows, place.row_size, key, stochastic)
        for f, key in zip(formats, keys, strict=True)
    )
    library.qt_update(
        w.data_ptr(), g.data_ptr(), v.data_ptr(), work.data_ptr(), ctypes.byref(terms), momentum, master,
        threads_for(w.numel()),
    )  # fmt: skip
    return v
