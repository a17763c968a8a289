"""The kernels' C interface in ctypes."""

from __future__ import annotations

import ctypes
import struct
from ctypes import POINTER, c_double, c_float, c_int, c_int32, c_int64, c_uint32, c_void_p
from pathlib import Path

import torch

PARALLEL_FROM = 1 << 15
"""Elements from which waking other threads (about 5 us) is repaid."""


class Point(ctypes.Structure):
    """One quantization point, as in kernels/common.h."""

    _fields_ = [
        ("inverse", c_double), ("step", c_double), ("low", c_double), ("high", c_double), ("cap", c_double),
        ("rows", c_void_p), ("index", c_void_p), ("n_rows", c_int64), ("row_size", c_int64),
        ("key", c_uint32), ("stochastic", c_int32),
    ]  # fmt: skip


class Map(ctypes.Structure):
    """Channels, elements of one channel's plane, and whether channels lie last (kernels/norm.cpp)."""

    _fields_ = [("channels", c_int64), ("plane", c_int64), ("last", c_int32)]


class Peak(ctypes.Structure):
    """The largest magnitude and the largest positive number seen, as a float's bits."""

    _fields_ = [("magnitude", c_int64), ("positive", c_int64)]

    def seen(self, signed: bool, dtype: torch.dtype) -> float:
        """The maximum a scale is taken from; not a number if any element was."""
        kind = ("<i", "<f") if dtype == torch.float32 else ("<q", "<d")
        magnitude, positive = (
            struct.unpack(kind[1], struct.pack(kind[0], b))[0] for b in (self.magnitude, self.positive)
        )
        return magnitude if signed or magnitude != magnitude else positive


_POINT, _MAP, _PEAK = POINTER(Point), POINTER(Map), POINTER(Peak)
_P = c_void_p
_SIGNATURES = {
    "qt_peak_f32": [_P, _P, _POINT, c_int, _PEAK],
    "qt_peak_f64": [_P, _P, _POINT, c_int, _PEAK],
    "qt_quantize_f32": [_P, _P, _P, _POINT, c_int, _PEAK],
    "qt_quantize_f64": [_P, _P, _P, _POINT, c_int, _PEAK],
    "qt_store": [_P, _P, _P, _POINT, _MAP, c_int, _PEAK],
    "qt_norm": [_P, _P, _P, _P, _POINT, _MAP, c_int, _PEAK],
    "qt_norm_sums": [_P, _P, _P, _P, _P, _P, c_float, c_float, c_float, _POINT, _MAP, c_int],
    "qt_norm_error": [_P, _P, _P, _P, _P, _P, _POINT, _MAP, c_int, _PEAK],
    "qt_norm_statistics": [c_int64, _P, c_int64, c_int, c_int64, c_int64, _P, _P, c_int, c_int, _P],
    "qt_squares": [_P, c_float, _P, c_int64, _MAP, c_int],
    "qt_update": [_P, _P, _P, _P, _P, _POINT, _POINT, c_int],
    "qt_norm_affine": [c_int64, _P, _P, c_int, _P, c_int, _P, _P],
    "qt_norm_backward": [c_int64, _P, _P, c_int, _P, c_int64, c_int, c_int, c_int, _P, _P, _P, _P, _P],
}


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
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, None
    return library


def threads_for(n_elements: int) -> int:
    """PyTorch's own number of threads, one for small tensors."""
    return torch.get_num_threads() if n_elements >= PARALLEL_FROM else 1
