"""Quantization points through the compiled kernels: one pass over the tensor, the next step's maximum included."""

from __future__ import annotations

import ctypes
import math
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from qtrain.engine.library import REFUSED, SCALES, Place, Rule
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.noise import row_indices, step_key

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
    """A dense tensor, and how it lies."""

    __slots__ = ("at", "last", "rows", "x")

    def __init__(self, x: Tensor, rows: Tensor | None, keyed: bool) -> None:
        """`keyed`: the rounding asks for noise, by each element's logical index."""
        self.last = False
        if not x.is_contiguous():
            self.last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
            x = x if self.last else x.contiguous()
        self.x = x
        self.at = place(x.shape, self.last, keyed, torch.get_num_threads())
        if keyed and rows is not None:
            self.rows = rows.contiguous()  # kept alive with its address
            a, start = self.at, self.rows.data_ptr()
            self.at = Place(start, a.index, a.n_rows, a.row_size, a.channels, a.plane, a.last, a.threads)

    @property
    def layout(self) -> torch.memory_format:
        return torch.channels_last if self.last else torch.contiguous_format


@lru_cache(maxsize=1024)
def place(shape: torch.Size, last: bool, keyed: bool, threads: int) -> Place:
    """How a dense tensor of `shape` lies, with `last` in channels_last order."""
    row_size, channels = math.prod(shape[1:]), shape[1] if len(shape) > 1 else 1
    index = _index(shape[1:]).data_ptr() if keyed and last else None
    flat = last or row_size == channels
    return Place(None, index, shape[0] if shape else 1, row_size, channels, row_size // max(channels, 1), flat, threads)


@cache
def _index(row: torch.Size) -> Tensor:
    """Each element's logical index within its row in channels_last order; kept, since addresses of it are."""
    return row_indices(tuple(row), True, torch.device("cpu"))


def accepts(q: Any) -> bool:
    """Whether the kernels do what this point asks."""
    return isinstance(q.format, FixedPoint) and q.rounding in COMPILED_ROUNDINGS and q.scale in SCALES


def rule_of(q: Any) -> Rule:
    """What the kernels need to know of `q` (a Quantizer), with the maximum it holds now."""
    rule: Rule | None = q.rule
    if rule is None:
        rule = q.rule = Rule(
            q.format.min_code, q.format.max_code, math.nan, q.stream_id, SCALES.index(q.scale), q.format.signed,
            q.rounding == "stochastic", q.whole,
        )  # fmt: skip
    rule.amax = math.nan if q.amax is None else q.amax
    return rule


def learned(q: Any, exponent: int, learn: bool) -> int:
    """Give `q` what its rule has learned; returns the exponent. Raises QtrainError where the tensor was not finite."""
    if exponent == REFUSED:
        q.observe(math.nan, learn)
    if learn:
        amax = q.rule.amax
        q.amax = None if amax != amax else amax
        q.exponent = exponent
    return exponent


def quantize(library: ctypes.CDLL, q: Any, x: Tensor, clock: Any, rows: Tensor | None, learn: bool, cap: float | None,
             plus: Tensor | None, owned: bool) -> FixedTensor:  # fmt: skip
    """x (+ plus) on the grid of `q`. `owned`: x is the caller's own and may be overwritten."""
    stochastic = q.rounding == "stochastic"
    placed = Placed(x, rows, stochastic)
    source = placed.x
    other = None if plus is None else plus.contiguous(memory_format=placed.layout)
    out = source if owned or source is not x else torch.empty_like(source)
    point = library.qt_point_f32 if source.dtype == torch.float32 else library.qt_point_f64
    exponent = point(
        source.data_ptr(), None if other is None else other.data_ptr(), out.data_ptr(), rule_of(q), placed.at,
        step_key(clock.seed, clock.step) if stochastic else 0, learn, math.inf if cap is None else cap,
    )  # fmt: skip
    return FixedTensor(out, learned(q, exponent, learn))


def pack(library: ctypes.CDLL, q: Any, x: Tensor, learn: bool) -> CodeTensor | None:
    """x [n, C, ...] as int8 codes with the channels' sums; None where these kernels do not apply."""
    if x.dtype != torch.float32 or q.rounding != "nearest-even" or q.format.max_code > 127 or x.dim() not in (2, 4):
        return None
    placed = Placed(x, None, False)
    if placed.at.plane > MAX_PLANE:
        return None
    packed = torch.empty_like(placed.x, dtype=torch.int8)
    sums = torch.zeros(x.shape[1], 2, dtype=torch.int64)
    exponent = library.qt_store(placed.x.data_ptr(), packed.data_ptr(), sums.data_ptr(), rule_of(q), placed.at, learn)
    return CodeTensor(packed, sums, learned(q, exponent, learn))
