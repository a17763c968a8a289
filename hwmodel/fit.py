"""Maximum a posteriori fit of libraries, cores and boards to latencies measured on MLPerf Tiny.

A row's cycles are the sum over kernel groups of the cycles known beforehand (instruction tables), each times
library x kind x core x board, plus flash bytes x stall. Factors are log-normal around 1 with the spreads below, so a
parameter that the rows say nothing of keeps its prior: that is how a kernel kind or a board left out is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from hwmodel import cores, devices, mcu, network
from hwmodel.cores import GROUPS
from hwmodel.errors import HwmodelError
from hwmodel.kernels import works
from hwmodel.measurements import Row, tables
from hwmodel.operations import Widths
from hwmodel.schedule import inference

SPREAD = {
    "library": 0.7,
    "kind": 0.15,
    "library kind": 0.1,
    "core": 0.15,
    "core kind": 0.05,
    "board": 0.1,
    "stall": 0.5,
}
"""Standard deviation of the logarithm of each kind of factor: a library may halve or double all its cycles, and treat
one kind of kernel 10 % better than another; a core's prior ratio is known to 15 %, a board's clocking to 10 %."""
SPREAD_OF_KINDS = {"cortex-m85": 0.3}
"""Cores whose instruction table is a hand count without a measured kernel: single kinds may be 30 % off."""
SPREAD_OF_CORE = {"cortex-m7": 0.3, "cortex-m85": 0.3}
"""Cores without a measured kernel: their prior is no better than that."""
SPREAD_OF_LIBRARY = {"cmsis-nn-7": 0.08}
"""Libraries whose forms were measured kernel by kernel (leave-one-out error 7.8 %)."""
NOISE = 0.05
"""Spread of a measurement around the best model: rows of one system scatter by about 5 %."""
STEP = 0.65
"""Damping of Gauss-Newton, whose full steps overshoot here (stall against cycles) and alternate."""
STALL_PRIOR = 5 / 8
"""Cycles per weight byte streamed from flash: five wait states for each 64-bit read (STM32L4R5 at 120 MHz, RM0432)."""


@dataclass(frozen=True)
class Features:
    """Cycles of a task on a core with a library by kernel group, known beforehand, and its bytes of flash."""

    by_group: tuple[float, ...]
    flash_bytes: float


Parameters = Mapping[tuple[str, ...], float]
"""Logarithm of each factor by its name."""


@cache
def features(task: str, core_name: str, library_name: str, floating: bool, cache_bytes: float) -> Features:
    """What the instruction tables say of one task."""
    core, library = cores.core(core_name), cores.library(library_name)
    sums, flash = dict.fromkeys(GROUPS, 0.0), 0.0
    net = network.load(tables()["networks"][task])
    for op, tally in inference(net, Widths.uniform(32 if floating else 8)):
        for work in works(op):
            cycles = mcu.core_cycles(work, floating, core, library)
            sums[cores.group(work.kernel)] += tally.count * cycles
            flash += tally.count * work.weight_bytes * (1.0 if work.weight_bytes <= cache_bytes else work.reuse)
    return Features(tuple(sums.values()), flash)


def of_row(row: Row) -> Features:
    """The features of a row's task on its system."""
    cache_bytes = devices.load(row.board).get("cache_bytes", 0.0)
    return features(row.task, row.core, row.library, row.floating, cache_bytes)


def priors(used: Iterable[Row]) -> dict[tuple[str, ...], tuple[float, float]]:
    """Mean and spread of every parameter that these rows could need."""
    used = list(used)
    found: dict[tuple[str, ...], tuple[float, float]] = {("kind", group): (0.0, SPREAD["kind"]) for group in GROUPS}
    for name in sorted({row.library for row in used}):
        found["library", name] = (0.0, SPREAD_OF_LIBRARY.get(name, SPREAD["library"]))
        found |= {("library kind", name, group): (0.0, SPREAD["library kind"]) for group in GROUPS}
    for name in sorted({row.core for row in used} - {"cortex-m4"}):
        found["core", name] = (0.0, SPREAD_OF_CORE.get(name, SPREAD["core"]))
        spread = SPREAD_OF_KINDS.get(name, SPREAD["core kind"])
        found |= {("core kind", name, group): (0.0, spread) for group in GROUPS}
    for name in sorted({row.board for row in used}):
        found["board", name] = (0.0, SPREAD["board"])
        found["stall", name] = (math.log(STALL_PRIOR), SPREAD["stall"])
    return found


def _factors(row: Row) -> list[tuple[tuple[str, ...], ...]]:
    """Names of the parameters that multiply each group's cycles."""
    own = (("library", row.library), ("board", row.board))
    core = (("core", row.core),) if row.core != "cortex-m4" else ()
    return [
        (*own, *core, ("kind", group), ("library kind", row.library, group),
         *((("core kind", row.core, group),) if core else ()))
        for group in GROUPS
    ]  # fmt: skip


def terms(parameters: Parameters, row: Row) -> list[tuple[float, tuple[tuple[str, ...], ...]]]:
    """Cycles of each group and of the flash, with the parameters that scale them."""
    known = of_row(row)
    scaled = []
    for cycles, names in zip(known.by_group, _factors(row), strict=True):
        scaled.append((cycles * math.exp(sum(parameters[name] for name in names)), names))
    stall = ("stall", row.board)
    scaled.append((known.flash_bytes * math.exp(parameters[stall]), (stall,)))
    return scaled


def predicted_cycles(parameters: Parameters, row: Row) -> float:
    """Cycles of a row under the parameters; those it lacks must be given their priors first (see fit)."""
    return sum(cycles for cycles, _ in terms(parameters, row))


def fit(train: Iterable[Row], needed: Iterable[Row]) -> dict[tuple[str, ...], float]:
    """Parameters fitted to `train`, with those that only `needed` uses at their priors. Gauss-Newton in logarithms."""
    import numpy as np

    train = list(train)
    prior = priors([*train, *needed])
    names = list(prior)
    position = {name: i for i, name in enumerate(names)}
    mean = np.array([prior[name][0] for name in names])
    weight = np.array([prior[name][1] for name in names]) ** -2.0
    theta = mean.copy()
    for _ in range(100):
        parameters = dict(zip(names, theta.tolist(), strict=True))
        residual, jacobian = np.zeros(len(train)), np.zeros((len(train), len(names)))
        for i, row in enumerate(train):
            parts = terms(parameters, row)
            total = sum(cycles for cycles, _ in parts)
            residual[i] = math.log(total / row.cycles) / NOISE
            for cycles, used in parts:
                for name in used:
                    jacobian[i, position[name]] += cycles / total / NOISE
        normal = jacobian.T @ jacobian + np.diag(weight)
        change = np.linalg.solve(normal, jacobian.T @ residual + weight * (theta - mean))
        theta = theta - STEP * change
        if float(np.abs(change).max()) < 1e-6:
            return dict(zip(names, theta.tolist(), strict=True))
    raise HwmodelError("the fit does not converge; check the calibration table for an impossible latency")
