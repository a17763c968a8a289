"""Cycles per entry of each level of the direct loops, from the shapes FITTED: prints hwmodel/calibration/loops.toml.

Needs what arm.py and riscv.py need, NumPy and SciPy. Run: python benchmarks/kernels/fit.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import arm
import numpy as np
import riscv
from model import FITTED, PASSES, Case
from scipy.optimize import nnls

from hwmodel import cores
from hwmodel.loops import Loop, trips

LEVELS = {
    "conv": ("product", "run", "skip", "row", "row_skip", "output"),
    "conv_error": ("product", "run", "skip", "row", "output", "input"),
    "conv_gradient": ("product", "skip", "row", "row_skip", "output"),
    "depthwise": ("product", "skip", "row", "row_skip", "output"),
    "depthwise_error": ("product", "skip", "row", "output", "input"),
    "depthwise_gradient": ("product", "skip", "row", "row_skip", "output"),
}
"""Levels whose entries cost something in each plain loop (an error's skipped row costs what its output does)."""
BACKWARD = {"depthwise_error": ("product", "run", "input"), "depthwise_gradient": ("product", "run")}
FORWARD = {"depthwise": ("product", "run", "skip", "output")}
"""The same for the loops of simd.c, whose channels lie innermost."""


def main() -> None:
    """Measure every fitted case, then solve for each kernel's levels."""
    with tempfile.TemporaryDirectory() as folder:
        on_arm, on_riscv = arm.measurer(Path(folder)), riscv.measurer(Path(folder))
        show("plain-c", "cortex-m4", LEVELS, lambda case, phase: on_arm(case, phase, "plain"))
        show("plain-c", "rv32imc", LEVELS, on_riscv)
        for name, kernels in (("depthwise-backward", BACKWARD), ("depthwise-forward", FORWARD)):
            show(name, "cortex-m4", kernels, lambda case, phase: on_arm(case, phase, "simd"), True)


def show(
    name: str,
    core: str,
    kernels: dict[str, tuple[str, ...]],
    measure: Callable[[Case, str], int],
    innermost: bool = False,
) -> None:
    """One section of the TOML."""
    print(f"\n[{name}.{core}]")
    for kernel, levels in kernels.items():
        found, worst = solved(kernel, levels, core, measure, innermost)
        row = ", ".join(f"{level} = {cycles:.2f}" for level, cycles in found.items() if cycles > 0.005)
        print(f"{kernel} = {{ {row}{', innermost = true' if innermost else ''} }}  # within {worst:.1%}", flush=True)


def solved(
    kernel: str, levels: tuple[str, ...], core: str, measure: Callable[[Case, str], int], innermost: bool
) -> tuple[dict[str, float], float]:
    """Cycles per entry of each level, least squares of relative errors, none negative; and the largest error."""
    phase = next(phase for phase in PASSES if phase in kernel or (phase == "forward" and "_" not in kernel))
    cases = [case for case in FITTED if case.depthwise == kernel.startswith("depthwise")]
    rows, cycles = [], []
    for case in cases:
        entries = trips(case.op(phase))
        one = [Loop(**{"product": 0.0, level: 1.0}, innermost=innermost) for level in levels]  # type: ignore[arg-type]
        rows.append([loop.cycles(entries, loop.product) for loop in one])
        rounded = {"forward": case.layer.n_out, "error": case.layer.n_in, "gradient": 0}[phase]
        cycles.append(measure(case, phase) - rounded * cores.core(core).unit_cycles("requantize"))
    matrix = np.array(rows) / np.array(cycles)[:, None]
    found, _ = nnls(matrix, np.ones(len(cycles)))
    return dict(zip(levels, found.tolist(), strict=True)), float(np.abs(matrix @ found - 1).max())


if __name__ == "__main__":
    main()
