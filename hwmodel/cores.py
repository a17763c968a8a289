"""Processor cores by instruction set, and the kernel libraries that run on them: cycles per unit of work."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from hwmodel.errors import HwmodelError, unknown

GROUPS = ("conv", "pointwise", "depthwise", "linear", "other")
"""Kernels that a library speeds up together: the product loops, and everything else."""
INTEGER = ("stochastic_rounding",)
"""Kernels that compute with integers in float32 training too: random bits."""
_CONV_HELPERS = ("im2col", "transpose", "rotate")


@dataclass(frozen=True, eq=False)
class Core:
    """Cycles per unit of work by kernel, with integers and in float32, of the core's reference library.

    `bound` is the least number of cycles per product that the instruction set allows; `unpack` the cycles to take one
    element out of a container that is not in `native_bits`; `width` factors on products of wider operands ("16x8";
    "32x32" where one of them is so wide). A core may be `like` another, `scale` times as many cycles; `float_product`
    is what a float product and sum take longer than integer ones in a direct loop.
    """

    name: str
    basis: str
    source: str
    reference: str
    native_bits: tuple[int, ...]
    unpack: float
    bound: float
    float_bound: float
    integer: Mapping[str, float]
    floating: Mapping[str, float]
    width: Mapping[str, float]
    like: str = ""
    scale: float = 1.0
    float_product: float = 0.0

    def unit_cycles(self, kernel: str, floating: bool = False) -> float:
        """Cycles per unit of `kernel`; a backward product loop without a row of its own costs what the forward does.

        Raises HwmodelError for a kernel without a row.
        """
        table = self.floating if floating and kernel not in INTEGER else self.integer
        for name in (kernel, _forward(kernel)):
            if name in table:
                return table[name]
        raise HwmodelError(f"core {self.name!r}: " + unknown("kernel", kernel, table))


@dataclass(frozen=True, eq=False)
class Library:
    """Factors of a kernel library on a core's cycles, known beforehand, by kernel."""

    name: str
    basis: str
    source: str
    shape: Mapping[str, float]
    cores: tuple[str, ...]
    loops: tuple[str, ...] = ("depthwise-backward",)  # sets of direct loops (hwmodel.loops) that it runs

    def of(self, kernel: str) -> float:
        """The factor on a kernel's cycles."""
        return self.shape.get(kernel, self.shape.get(_forward(kernel), 1.0))


def group(kernel: str) -> str:
    """The group of GROUPS that a kernel belongs to."""
    name = kernel.split("_")[0]
    if name in _CONV_HELPERS:
        return "conv"
    return name if name in GROUPS else "other"


@cache
def core(name: str) -> Core:
    """A core by name. Raises HwmodelError for an unknown one."""
    rows = _table("cores")
    if name not in rows:
        raise HwmodelError(unknown("core", name, rows))
    row = rows[name]
    base = core(row["like"]) if "like" in row else None
    scale = row.get("scale", 1.0)
    integer = {k: v * scale for k, v in base.integer.items()} if base else {}
    floats = {k: v * row.get("float_scale", scale) for k, v in base.floating.items()} if base else {}
    inherited = (
        {field: getattr(base, field) for field in ("reference", "unpack", "float_bound", "width")} if base else {}
    )
    return Core(
        name,
        row["basis"],
        row["source"],
        row.get("reference", inherited.get("reference", "")),
        tuple(row.get("native_bits", base.native_bits if base else ())),
        row.get("unpack", inherited.get("unpack", 0.0) * scale),
        row["bound"],
        row.get("float_bound", inherited.get("float_bound", 1.0)),
        {**integer, **row.get("int", {})},
        {**floats, **row.get("float", {})},
        row.get("width", inherited.get("width", {})),
        row.get("like", ""),
        scale,
        row.get("float_product", base.float_product * scale if base else 0.0),
    )


def core_names() -> list[str]:
    """Names of the cores."""
    return sorted(_table("cores"))


@cache
def library(name: str) -> Library:
    """A kernel library by name. Raises HwmodelError for an unknown one."""
    rows = _table("libraries")
    if name not in rows:
        raise HwmodelError(unknown("kernel library", name, library_names()))
    row = rows[name]
    return Library(
        name, row["basis"], row["source"], row.get("shape", {}), tuple(row.get("cores", ())),
        tuple(row.get("loops", Library.loops)),
    )  # fmt: skip


def fitted(what: str, name: str) -> Mapping[str, float]:
    """Factors by group that the measurements add to a "core" or a "library"; empty where there are none."""
    factors: Mapping[str, float] = _table("fitted").get(what, {}).get(name, {})
    return factors


def library_names() -> list[str]:
    """Names of the integer kernel libraries."""
    return sorted(set(_table("libraries")) - {"float"})


def fitted_errors() -> dict[str, float]:
    """Mean leave-one-out errors of latency: "task", "board" and "family"."""
    errors: dict[str, float] = _table("fitted")["error"]
    return errors


def measured_libraries(board: str) -> list[str]:
    """Integer kernel libraries whose latencies were measured on a board."""
    libraries: list[str] = _table("fitted")["measured"].get(board, [])
    return libraries


@cache
def _table(name: str) -> dict[str, Any]:
    text = (resources.files("hwmodel") / "calibration" / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _forward(kernel: str) -> str:
    return kernel.replace("_gradient", "").replace("_error", "")
