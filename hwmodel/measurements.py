"""The MLPerf Tiny measurements that the model is calibrated on, row by row."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Row:
    """One measured latency: a task on a system (board, kernel library, release)."""

    board: str
    core: str
    library: str
    floating: bool
    release: str
    task: str
    clock_hz: float
    latency_s: float
    energy_j: float | None
    supply_v: float | None

    @property
    def cycles(self) -> float:
        """Measured clock cycles."""
        return self.latency_s * self.clock_hz

    @property
    def system(self) -> tuple[str, str, str]:
        """Board, library and release."""
        return self.board, self.library, self.release


@cache
def tables() -> dict[str, Any]:
    """The MLPerf Tiny table as read."""
    text = (resources.files("hwmodel") / "calibration" / "mlperf_tiny.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def rows() -> tuple[Row, ...]:
    """Every measured latency of the table, accelerators included."""
    found = []
    for system in tables()["system"]:
        energies = system.get("energy_mj", [math.nan] * 4)
        for task, latency, energy in zip(tables()["networks"], system["latency_ms"], energies, strict=True):
            if math.isnan(latency):
                continue
            floating = system.get("floating", False)
            found.append(
                Row(
                    system["board"],
                    system["core"],
                    "float" if floating else system["kernels"],
                    floating,
                    system["round"],
                    task,
                    system["clock_mhz"] * 1e6,
                    latency * 1e-3,
                    None if math.isnan(energy) else energy * 1e-3,
                    system.get("supply_v"),
                )
            )
    return tuple(found)


def mcu_rows() -> tuple[Row, ...]:
    """The rows measured on microcontrollers."""
    return tuple(row for row in rows() if row.core != "accelerator")
