"""The validation report: every calibration measurement against the model, with the leave-one-out errors."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from hwmodel import leave_out, refit, training_passes
from hwmodel.leave_out import Errors, mean_error
from hwmodel.measurements import Row

TARGETS = {
    "leave_one_task_out": 0.12,
    "leave_one_board_out": 0.15,
    "energy_within_system": 0.05,
    "energy_across_engines": 0.15,
    "energy_gap9": 0.10,
}
"""Largest mean errors that the model is held to."""


def report() -> dict[str, Any]:
    """Plain data: `summary` of mean errors with their targets, `latency`, `energy` and training `passes` row by row."""
    latency = {
        "fitted": leave_out.in_sample(),
        "task_left_out": leave_out.one_task(),
        "board_left_out": leave_out.one_board(),
        "macs_only": leave_out.macs_only(),
    }
    energy = {
        "within_system": leave_out.energy_within_system(),
        "across_engines": leave_out.energy_across_engines(),
        "across_supplies": leave_out.energy_across_supplies(),
        "gap9": leave_out.energy_gap9(),
    }
    return {
        "summary": _summary(latency, energy),
        "latency": [_latency_row(row, latency) for row in latency["fitted"]],
        "energy": [
            {"split": split, **_identity(row), "measured_j": row.energy_j, "error": error}
            for split, errors in energy.items()
            for row, error in errors.items()
        ],
        "passes": training_passes.rows(),
    }


def _summary(latency: dict[str, Errors], energy: dict[str, Errors]) -> dict[str, Any]:
    single, engines = leave_out.single_boards(), leave_out.single_engines()
    boards = latency["board_left_out"]
    families = {row: error for row, error in boards.items() if row.board not in single}
    found: dict[str, Any] = {
        "n_latency_rows": len(boards),
        "fitted": mean_error(latency["fitted"].values()),
        "leave_one_task_out": mean_error(latency["task_left_out"].values()),
        "leave_one_board_out": mean_error(families.values()),
        "leave_one_board_out_known_engine": mean_error(
            error for row, error in families.items() if row.library not in engines
        ),
        "leave_one_board_out_by_board": {
            board: mean_error(error for row, error in boards.items() if row.board == board)
            for board in dict.fromkeys(row.board for row in boards)
        },
        "single_boards": sorted(single),
        "macs_only": mean_error(latency["macs_only"].values()),
        "macs_only_worst": max(abs(error) for error in latency["macs_only"].values()),
        "leave_one_task_out_by_task": {
            task: mean_error(error for row, error in latency["task_left_out"].items() if row.task == task)
            for task in dict.fromkeys(row.task for row in boards)
        },
        "leave_one_task_out_bias": fmean(latency["task_left_out"].values()),
    }
    found |= {f"energy_{split}": mean_error(errors.values()) for split, errors in energy.items()}
    return found | {"targets": TARGETS, "met": {key: bool(found[key] <= TARGETS[key]) for key in TARGETS}}


def _identity(row: Row) -> dict[str, Any]:
    return {"board": row.board, "core": row.core, "kernels": row.library, "release": row.release, "task": row.task}


def _latency_row(row: Row, latency: dict[str, Errors]) -> dict[str, Any]:
    errors = {name: found[row] for name, found in latency.items()}
    predicted = {f"{name}_ms": (1 + error) * row.latency_s * 1e3 for name, error in errors.items()}
    return {**_identity(row), "measured_ms": row.latency_s * 1e3, **predicted,
            **{f"{name}_error": error for name, error in errors.items()}}  # fmt: skip


def render(data: dict[str, Any]) -> str:
    """The report as text: the rows, then the summary."""
    lines = ["latency in ms: measured, fitted, task left out, board left out, cycles per MAC of the other tasks"]
    for row in data["latency"]:
        name = f"{row['board']} {row['kernels']} {row['release']}"
        columns = "".join(
            f"{row[key + '_ms']:10.2f} {row[key + '_error']:+6.0%}"
            for key in ("fitted", "task_left_out", "board_left_out", "macs_only")
        )
        lines.append(f"{name:32}{row['task']:4}{row['measured_ms']:10.2f}{columns}")
    lines.append("energy given measured latency: measured mJ, error")
    for row in data["energy"]:
        name = f"{row['board']} {row['kernels']} {row['release']}"
        lines.append(f"{name:32}{row['task']:4}{row['measured_j'] * 1e3:10.4f} {row['error']:+6.1%}  {row['split']}")
    lines.append("training passes of one convolution, cycles per MAC: measured, predicted by the instruction tables")
    for row in data["passes"]:
        name = f"{row['core']} {row['kernels'] or 'SIMD'}"
        lines.append(f"{name:24}{row['pass']:10}{row['measured']:8.3f}{row['predicted']:8.3f} {row['error']:+6.1%}")
    summary = data["summary"]
    lines.append(f"mean absolute errors over {summary['n_latency_rows']} rows")
    for key, value in summary.items():
        if isinstance(value, float):
            target = f"  (at most {TARGETS[key]:.0%})" if key in TARGETS else ""
            lines.append(f"  {key:36}{value:8.1%}{target}")
    for board, error in summary["leave_one_board_out_by_board"].items():
        alone = "  (alone in its family, not counted)" if board in summary["single_boards"] else ""
        lines.append(f"  board left out: {board:20}{error:8.1%}{alone}")
    return "\n".join(lines)


def write_fit() -> str:
    """Rewrite calibration/fitted.toml in place; returns the board constants that the device files must state."""
    path = Path(__file__).parent / "calibration" / "fitted.toml"
    path.write_text(refit.text(), encoding="utf-8")
    found = refit.board_constants(refit.parameters())
    return "\n".join(
        f"{board}: " + ", ".join(f"{key} = {value}" for key, value in row.items()) for board, row in found.items()
    )
