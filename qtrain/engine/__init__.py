"""How the arithmetic is executed: compiled kernels, or PyTorch operations of the same bits.

`use` chooses; the layers ask `kernels_for`. "auto" takes the compiled kernels when they are already built, or when
`prepare` was told of a run long enough to repay building them; without a compiler it is "torch".
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from qtrain.engine.build import BuildError, build, compiler, library_path
from qtrain.engine.library import keep_freed_memory, load
from qtrain.errors import QtrainError

ENGINES = ("auto", "torch", "compiled", "brevitas")
BUILD_REPAID_AFTER_S = 15.0
"""A build takes about 3 s, and the kernels at least halve what remains."""

__all__ = ["ENGINES", "active", "compiler", "kernels_for", "prepare", "use", "using"]

_chosen = "auto"
_library: ctypes.CDLL | None = None
_refused = False  # building or loading failed: said once, not tried again
_looked = False  # "auto" looks into the cache once


def use(name: str) -> None:
    """Choose the engine for this process. "compiled" builds the kernels if need be; where that fails, one warning is
    given and PyTorch computes the same bits. Raises QtrainError for an unknown name."""
    global _chosen
    if name not in ENGINES:
        raise QtrainError(f"unknown engine {name!r} (valid: {', '.join(ENGINES)})")
    _chosen = name
    keep_freed_memory()  # PyTorch's operations gain by it, too
    if name == "compiled":
        _obtain()


def prepare(expected_s: float) -> None:
    """Tell "auto" how long the run would take by PyTorch alone, in seconds: it builds the kernels if that repays."""
    if _chosen == "auto" and expected_s >= BUILD_REPAID_AFTER_S and library_path() is not None:
        _obtain()


@contextmanager
def using(name: str) -> Iterator[None]:
    """`use(name)` for the length of a with block."""
    before = _chosen
    use(name)
    try:
        yield
    finally:
        use(before)


def active() -> str:
    """The engine in force: "torch", "compiled" or "brevitas"."""
    if _chosen == "auto":
        return "compiled" if _kernels() is not None else "torch"
    return "torch" if _chosen == "compiled" and _library is None else _chosen


def kernels_for(x: Tensor) -> ctypes.CDLL | None:
    """The compiled kernels if they are in force and take `x` (float32 or float64 on the CPU, not empty), else None."""
    library = _kernels()
    if library is None or not x.is_cpu or x.dtype not in (torch.float32, torch.float64) or not x.numel():
        return None
    return library


def _kernels() -> ctypes.CDLL | None:
    global _looked
    if _chosen in ("torch", "brevitas"):
        return None
    if not _looked and _library is None:
        _looked = True
        path = library_path()
        if path is not None and path.exists():
            _obtain()
    return _library


def _obtain() -> None:
    global _library, _refused
    if _library is not None or _refused:
        return
    try:
        _library = load(build())
    except (BuildError, OSError) as error:
        _refused = True
        warnings.warn(f"computing with PyTorch's operations (same bits, slower): {error}", stacklevel=3)
