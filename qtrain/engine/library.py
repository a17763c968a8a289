"""The kernels' C interface in ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path

SCALES = ("dynamic", "delayed", "moving-average", "static")
"""The scale rules the kernels follow."""
REFUSED = -(1 << 31)
"""The exponent of a tensor that is not finite."""


class Rule(ctypes.Structure):
    """A quantization point: what it is and has learned (kernels/common.h)."""

    _fields_ = [
        ("low", c_double), ("high", c_double), ("amax", c_double), ("stream", c_uint32), ("scale", c_int32),
        ("is_signed", c_int32), ("stochastic", c_int32), ("whole", c_int32),
    ]  # fmt: skip


class Place(ctypes.Structure):
    """How a tensor lies (kernels/common.h)."""

    _fields_ = [
        ("rows", c_void_p), ("index", c_void_p), ("n_rows", c_int64), ("row_size", c_int64), ("channels", c_int64),
        ("plane", c_int64), ("last", c_int32), ("threads", c_int32),
    ]  # fmt: skip


_RULE, _PLACE = POINTER(Rule), POINTER(Place)
_P = c_void_p
_POINT = [_P, _P, _P, _RULE, _PLACE, c_uint32, c_int, c_double], c_int
_SIGNATURES = {
    "qt_point_f32": _POINT,
    "qt_point_f64": _POINT,
    "qt_store": ([_P, _P, _P, _RULE, _PLACE, c_int], c_int),
    "qt_norm": ([_P, _P, _P, _P, _RULE, _PLACE, c_int, c_double], c_int),
    "qt_norm_sums": ([_P] * 6 + [c_float, c_float, c_float, _RULE, c_int, c_double, _PLACE], None),
    "qt_norm_error": ([_P] * 6 + [_RULE, _PLACE, c_uint32], c_int),
    "qt_norm_statistics": ([c_int64, _P, c_int64, c_int, c_int64, c_int64, _P, _P, c_int, c_int, _P], None),
    "qt_norm_affine": ([c_int64, _P, _P, c_int, _P, c_int, _P, _P], None),
    "qt_norm_backward": ([c_int64, _P, _P, c_int, _P, c_int64, c_int, c_int, c_int] + [_P] * 5, None),
    "qt_squares": ([_P, c_float, _P, _PLACE], c_double),
    "qt_gather_f32": ([_P, _P, _P, c_int64, _PLACE], None),
    "qt_gather_f64": ([_P, _P, _P, c_int64, _PLACE], None),
    "qt_update": ([_P, c_int64, _P], None),
}
"""Argument types and result of each function."""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
_KEPT_BYTES, _LARGEST_HEAP_BLOCK = 1 << 30, 32 << 20  # the latter is the most glibc takes


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next step instead of returning it to the system: a step's tensors are those
    of the step before, and faulting their pages in anew costs more than some of the kernels. Elsewhere: nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)


def load(path: Path) -> ctypes.CDLL:
    """The library with its argument types declared. Raises OSError when it can't be loaded."""
    library = ctypes.CDLL(str(path))
    keep_freed_memory()
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library
