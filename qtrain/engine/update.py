"""The optimizer's update of all parameters through the compiled kernels, in one call."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int32, c_int64, c_uint32, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from qtrain.engine import kernels_for
from qtrain.engine.points import COMPILED_ROUNDINGS, Placed
from qtrain.formats.fixed import FixedPoint


class Parameter(ctypes.Structure):
    """One parameter, as in kernels/update.cpp."""

    _fields_ = [
        ("w", c_void_p), ("g", c_void_p), ("v", c_void_p), ("index", c_void_p), ("n_rows", c_int64),
        ("row_size", c_int64), ("master_max", c_double), ("velocity_max", c_double), ("master_stream", c_uint32),
        ("velocity_stream", c_uint32), ("stochastic", c_int32), ("has_velocity", c_int32), ("least", c_int32),
        ("finite", c_int32),
    ]  # fmt: skip


class Terms(ctypes.Structure):
    """What all parameters share, as in kernels/update.cpp."""

    _fields_ = [
        ("scale", c_double), ("momentum", c_double), ("decay", c_double), ("rate", c_double), ("clock", c_uint32),
        ("threads", c_int32),
    ]  # fmt: skip


class Entry(NamedTuple):
    """A parameter ready for the update: where it lies, and its tensors, which keep their addresses while they live."""

    place: Placed
    gradient: Tensor
    velocity: Tensor | None
    parameter: Parameter


def entry(
    w: Tensor, grad: Tensor, velocity: Tensor | None, momentum: bool, least: int,
    formats: tuple[FixedPoint, FixedPoint], streams: tuple[int, int], rounding: str,
) -> Entry | None:  # fmt: skip
    """What the kernels need of one parameter: formats and streams (of the noise) are master's and momentum's. The
    entry's velocity is a new tensor where there was none. None: the kernels do not apply."""
    known = rounding in COMPILED_ROUNDINGS and all(isinstance(fmt, FixedPoint) for fmt in formats)
    if not known or kernels_for(w) is None or w.dtype != torch.float32:
        return None
    stochastic = rounding == "stochastic"
    placed = Placed(w, None, stochastic)
    if placed.x is not w:
        return None
    g = grad.to(torch.float32).contiguous(memory_format=placed.layout)
    v = None
    if momentum:
        v = torch.empty_like(w) if velocity is None else velocity.contiguous(memory_format=placed.layout)
    at, (master, moving) = placed.at, formats
    parameter = Parameter(
        w.data_ptr(), g.data_ptr(), None if v is None else v.data_ptr(), at.index, at.n_rows, at.row_size,
        master.max_code, moving.max_code, *streams, stochastic, velocity is not None, least,
    )  # fmt: skip
    return Entry(placed, g, v, parameter)


def update(entries: list[Entry], terms: Terms) -> list[Parameter]:
    """Update every entry's parameter in place. Returns the parameters with their new exponents; from the first that is
    not finite on they are as they were."""
    library = kernels_for(entries[0].place.x)
    assert library is not None
    table = (Parameter * len(entries))(*(e.parameter for e in entries))
    library.qt_update(table, len(entries), ctypes.byref(terms))
    return list(table)
