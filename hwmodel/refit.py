"""Writes what the fit to the measurements says: calibration/fitted.toml, and the constants of the measured boards."""

from __future__ import annotations

import json
import math

from hwmodel import leave_out
from hwmodel.cores import GROUPS
from hwmodel.fit import Parameters, fit
from hwmodel.leave_out import mean_error
from hwmodel.measurements import mcu_rows

DIGITS = 3
HEADER = """\
# What MLPerf Tiny measurements add to cores.toml and libraries.toml: factors by kernel group, and the mean
# leave-one-out errors that give predictions their error class.
# Written by `python -m hwmodel validate --refit`; do not edit.
"""


def parameters() -> Parameters:
    """The fit to every microcontroller row."""
    return fit(mcu_rows(), mcu_rows())


def factors(found: Parameters) -> dict[str, dict[str, dict[str, float]]]:
    """Factors by group of each fitted library and core; a library's include what all libraries share."""
    tables: dict[str, dict[str, dict[str, float]]] = {"library": {}, "core": {}}
    for what in tables:
        shared = "kind" if what == "library" else None
        for name in sorted({key[1] for key in found if key[0] == what}):
            tables[what][name] = {
                group: round(
                    math.exp(
                        found[what, name]
                        + found[f"{what} kind", name, group]
                        + (found[shared, group] if shared else 0.0)
                    ),
                    DIGITS,
                )
                for group in GROUPS
            }
    return tables


def board_constants(found: Parameters) -> dict[str, dict[str, float]]:
    """cycle_factor and flash_stall of each measured board, as its device file must state them."""
    boards = [key[1] for key in found if key[0] == "board"]
    return {
        board: {
            "cycle_factor": round(math.exp(found["board", board]), DIGITS),
            "flash_stall": round(math.exp(found["stall", board]), DIGITS),
        }
        for board in boards
    }


def errors() -> dict[str, float]:
    """Mean leave-one-out errors: a task on a measured board, a new board of a measured family, of another family."""
    single = leave_out.single_boards()
    tasks, boards = leave_out.one_task(), leave_out.one_board()
    return {
        "task": round(mean_error(tasks.values()), DIGITS),
        "board": round(mean_error(e for row, e in boards.items() if row.board not in single), DIGITS),
        "family": round(mean_error(e for row, e in boards.items() if row.board in single), DIGITS),
    }


def measured() -> dict[str, list[str]]:
    """Integer kernel libraries measured on each board."""
    boards: dict[str, list[str]] = {}
    for row in mcu_rows():
        libraries = boards.setdefault(row.board, [])
        if row.library not in (*libraries, "float"):
            libraries.append(row.library)
    return boards


def text() -> str:
    """The contents of fitted.toml."""
    lines = [HEADER, "[error]", *(f"{key} = {value}" for key, value in errors().items())]
    lines += ["", "[measured]", *(f"{board} = {json.dumps(names)}" for board, names in measured().items())]
    for what, tables in factors(parameters()).items():
        for name, row in tables.items():
            lines += ["", f"[{what}.{name}]", *(f"{group} = {value}" for group, value in row.items())]
    return "\n".join(lines) + "\n"
