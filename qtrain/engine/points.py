"""Quantization points through the compiled kernels: one pass over the tensor, the next step's maximum included."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from torch import Tensor

from qtrain.engine import kernels_for
from qtrain.engine.library import Map, Peak, Point, threads_for
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.noise import Stream, row_indices

COMPILED_ROUNDINGS = ("nearest-even", "stochastic")
MAX_PLANE = 1 << 16
"""Elements of a channel's plane up to which 8-bit codes' squares sum within 32 bits."""


class CodeTensor(FixedTensor):
    """A stored tensor as int8 `packed` codes [n, C, ...], with each channel's `sums` (of codes, of squares), int64
    [C, 2]. `values` makes the float tensor when it is asked for."""

    __slots__ = ("packed", "sums")

    def __init__(self, packed: Tensor, sums: Tensor, exponent: int) -> None:
        self.packed, self.sums, self.exponent = packed, sums, exponent

    @property
    def values(self) -> Tensor:  # type: ignore[override]
        return self.codes().mul_(math.ldexp(1.0, self.exponent or 0))

    def codes(self) -> Tensor:
        return self.packed.float()


class Placed:
    """A dense tensor and how its rows lie; what a Point needs to find each element's logical index."""

    __slots__ = ("index", "last", "n_rows", "row_size", "rows", "x")

    def __init__(self, x: Tensor, rows: Tensor | None, keyed: bool) -> None:
        """`keyed`: the rounding asks for noise."""
        self.last = False
        if not x.is_contiguous():
            self.last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
            x = x if self.last else x.contiguous()
        self.x = x
        self.n_rows = x.shape[0] if x.dim() else 1
        self.row_size = math.prod(x.shape[1:])
        self.rows = rows.contiguous() if keyed and rows is not None else None
        self.index = row_indices(tuple(x.shape[1:]), True, x.device) if keyed and self.last else None

    def point(self, q: Any, exponent: int, key: int, cap: float | None) -> Point:
        """`q` (a Quantizer) at `exponent`, with the noise's key."""
        return Point(
            math.ldexp(1.0, -exponent), math.ldexp(1.0, exponent), q.format.min_code, q.format.max_code,
            math.inf if cap is None else cap,
            None if self.rows is None else self.rows.data_ptr(), None if self.index is None else self.index.data_ptr(),
            self.n_rows, self.row_size, key, q.rounding == "stochastic",
        )  # fmt: skip

    def map(self) -> Map:
        """Channels and planes of a normalization's tensor, [n, C, H, W] or [n, C]."""
        channels = self.x.shape[1]
        return Map(channels, self.row_size // channels, self.last or self.row_size == channels)


def accepts(q: Any) -> bool:
    """Whether the kernels do what this point asks."""
    known = isinstance(q.format, FixedPoint) and q.rounding in COMPILED_ROUNDINGS and q.scale != "percentile"
    return known and q.monitor is None


def key_of(q: Any, clock: Any) -> int:
    return Stream(clock.seed, clock.step, q.stream_id).key if q.rounding == "stochastic" else 0


def by_pass(q: Any, run: Any, place: Placed, clock: Any, learn: bool, cap: float | None, dtype: torch.dtype,
            peak_only: Any) -> int:  # fmt: skip
    """Run `run(point, peak)` at the point's exponent and learn from the maximum; returns the exponent.

    A rule that needs this tensor's own maximum is first answered by `peak_only(point, peak)`.
    """
    exponent, key = q.held(learn), key_of(q, clock)
    known = exponent is not None
    if not known:
        peak = Peak()
        peak_only(place.point(q, 0, key, None), ctypes.byref(peak))
        exponent = q.observe(peak.seen(q.format.signed, dtype) if place.x.numel() else q.amax or 0.0, learn, cap)
    peak = Peak()
    run(place.point(q, exponent, key, cap), ctypes.byref(peak))
    if known and learn:
        q.observe(peak.seen(q.format.signed, dtype) if place.x.numel() else q.amax, learn, cap)
    return int(exponent)


def quantize(library: ctypes.CDLL, q: Any, x: Tensor, clock: Any, rows: Tensor | None, learn: bool, cap: float | None,
             plus: Tensor | None, owned: bool) -> FixedTensor:  # fmt: skip
    """x (+ plus) on the grid of `q`. `owned`: x is the caller's own and may be overwritten."""
    place = Placed(x, rows, q.rounding == "stochastic")
    source, other = place.x, None
    if plus is not None:
        other = plus.contiguous(memory_format=torch.channels_last if place.last else torch.contiguous_format)
    out = source if owned or source is not x else torch.empty_like(source)
    suffix = "f32" if source.dtype == torch.float32 else "f64"
    peak_of, round_to = getattr(library, f"qt_peak_{suffix}"), getattr(library, f"qt_quantize_{suffix}")
    a, b, threads = source.data_ptr(), None if other is None else other.data_ptr(), threads_for(source.numel())
    exponent = by_pass(
        q, lambda point, peak: round_to(a, b, out.data_ptr(), point, threads, peak), place, clock, learn, cap,
        source.dtype, lambda point, peak: peak_of(a, b, point, threads, peak),
    )  # fmt: skip
    return FixedTensor(out, exponent)


def pack(library: ctypes.CDLL, q: Any, x: Tensor, clock: Any, learn: bool) -> CodeTensor | None:
    """x [n, C, ...] as int8 codes with the channels' sums; None where these kernels do not apply."""
    if x.dtype != torch.float32 or q.rounding != "nearest-even" or q.format.max_code > 127 or x.dim() not in (2, 4):
        return None
    place = Placed(x, None, False)
    sizes = place.map()
    if sizes.plane > MAX_PLANE:
        return None
    packed = torch.empty_like(place.x, dtype=torch.int8)
    sums = torch.zeros(x.shape[1], 2, dtype=torch.int64)
    source, threads = place.x.data_ptr(), threads_for(x.numel())
    exponent = by_pass(
        q, lambda point, peak: library.qt_store(
            source, packed.data_ptr(), sums.data_ptr(), point, sizes, threads, peak),
        place, clock, learn, None, x.dtype, lambda point, peak: library.qt_peak_f32(source, None, point, threads, peak),
    )  # fmt: skip
    return CodeTensor(packed, sums, exponent)


def squares(x: Tensor, factor: float) -> Tensor | None:
    """Sum of (factor x)^2 of every instance and channel of x [n, C, H, W], float64 [n, C], to float32's precision; None
    where the kernels do not apply."""
    library = kernels_for(x)
    if library is None or x.dtype != torch.float32 or x.dim() != 4:
        return None
    place = Placed(x, None, False)
    out = torch.empty(x.shape[:2], dtype=torch.float64)
    library.qt_squares(place.x.data_ptr(), factor, out.data_ptr(), place.n_rows, place.map(), threads_for(x.numel()))
    return out
