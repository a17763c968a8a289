"""The model's cycles of the three training passes of one convolution against kernel measurements."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

from hwmodel import cores, mcu
from hwmodel.cores import Library
from hwmodel.kernels import works
from hwmodel.operations import Layer, Op, Widths

LOOPS = ("depthwise-backward", "depthwise-forward")
SIMD = Library("", "measured", "the plain SIMD kernels that a core's rows describe", {}, (), LOOPS)
PASSES = ("forward", "error", "gradient")
OUTSIDE = ("requantize_weight", "stochastic_rounding")
"""Kernels of the Op that the measured routines did not run."""


def rows() -> list[dict[str, Any]]:
    """core, kernels, pass, measured and predicted cycles per MAC, error; instruction tables alone, nothing fitted."""
    text = (resources.files("hwmodel") / "calibration" / "passes.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    shape = table["shape"]
    side, kernel = shape["side"], shape["kernel"]
    layer = Layer(
        "conv", "conv", ("x",), shape["channels"], side, side, shape["out_channels"], side, side, kernel, kernel
    )
    found = []
    for row in table["row"]:
        core = cores.core(row["core"])
        library = cores.library(row["kernels"]) if row["kernels"] else SIMD
        for phase in PASSES:
            predicted = _cycles(Op(layer, Widths(), phase, "main", 1, layer.out_channels), core, library) / layer.macs
            found.append(
                {
                    "core": core.name,
                    "kernels": library.name,
                    "pass": phase,
                    "measured": row[phase],
                    "predicted": predicted,
                    "error": predicted / row[phase] - 1,
                }
            )
    return found


def _cycles(op: Op, core: cores.Core, library: Library) -> float:
    """The measured gradient kernels leave 32-bit sums, so its requantization is left out too."""
    skipped = (*OUTSIDE, "requantize_gradient") if op.phase == "gradient" else OUTSIDE
    return sum(mcu.core_cycles(w, False, core, library) for w in works(op) if w.kernel not in skipped)
