"""Leave-one-out errors of the latency and energy models on the MLPerf Tiny table, and of a MAC-only baseline."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from statistics import fmean

from hwmodel import network
from hwmodel.fit import fit, predicted_cycles
from hwmodel.measurements import Row, mcu_rows, rows, tables

Errors = dict[Row, float]
"""Predicted / measured - 1 by row."""


def in_sample() -> Errors:
    """Errors of the fit on the rows it was fitted to."""
    parameters = fit(mcu_rows(), mcu_rows())
    return {row: predicted_cycles(parameters, row) / row.cycles - 1 for row in mcu_rows()}


def one_task() -> Errors:
    """Each task predicted with every parameter refitted on the other tasks' rows."""
    return _left_out(lambda row: row.task)


def one_board() -> Errors:
    """Each board predicted without any of its rows."""
    return _left_out(lambda row: row.board)


def families() -> dict[str, list[str]]:
    """Boards of each core family."""
    found: dict[str, list[str]] = {}
    for row in mcu_rows():
        boards = found.setdefault(row.core, [])
        if row.board not in boards:
            boards.append(row.board)
    return found


def single_boards() -> set[str]:
    """Boards alone in their core family: left out, they are predicted from another family."""
    return {boards[0] for boards in families().values() if len(boards) == 1}


def single_engines() -> set[str]:
    """Kernel libraries measured on one board alone: left out, they are predicted from their loops' prior."""
    boards: dict[str, set[str]] = {}
    for row in mcu_rows():
        boards.setdefault(row.library, set()).add(row.board)
    return {library for library, found in boards.items() if len(found) == 1}


def macs_only() -> Errors:
    """Baseline: a system's mean cycles per MAC over its other tasks times the task's MACs."""
    errors = {}
    for row in mcu_rows():
        others = [other for other in mcu_rows() if _system(other) == _system(row) and other.task != row.task]
        per_mac = fmean(other.cycles / _macs(other) for other in others)
        errors[row] = per_mac * _macs(row) / row.cycles - 1
    return errors


def energy_within_system() -> Errors:
    """Energy given measured latency: the system's mean power over its other tasks (microcontrollers)."""
    return _power(lambda row, other: _system(other) == _system(row) and other.task != row.task)


def energy_across_engines() -> Errors:
    """Energy given measured latency: the board's mean power over its other engines at the same supply."""
    return _power(
        lambda row, other: (other.board, other.supply_v) == (row.board, row.supply_v)
        and _system(other) != _system(row)
    )  # fmt: skip


def energy_across_supplies() -> Errors:
    """Energy given measured latency on an LDO board: the current of the same engine at the other supply."""
    measured = [row for row in mcu_rows() if row.energy_j is not None and row.supply_v is not None]
    errors = {}
    for row in measured:
        currents = [
            (other.energy_j or 0.0) / other.latency_s / (other.supply_v or 1.0)
            for other in measured
            if (other.board, other.library) == (row.board, row.library) and other.supply_v != row.supply_v
        ]
        if currents:
            errors[row] = fmean(currents) * (row.supply_v or 1.0) * row.latency_s / (row.energy_j or 1.0) - 1
    return errors


def energy_gap9() -> Errors:
    """Energy given measured latency on GAP9: counted accesses plus static power, refitted without the task.

    At each operating point energy = a x (the profile's energy of accesses and products) + b x latency, least squares of
    the relative errors over the other tasks.
    """
    from hwmodel import devices
    from hwmodel.operations import Widths
    from hwmodel.pricing import price
    from hwmodel.schedule import inference

    gap9, errors = devices.load("gap9"), {}
    counted: dict[str, float] = {}
    for task, name in tables()["networks"].items():
        bill = price(inference(network.load(name), Widths.uniform(8)), gap9, scope="inference")
        counted[task] = bill.energy_j - gap9.value("static_w") * bill.time_s
    measured = [row for row in rows() if row.board == "gap9"]
    for row in measured:
        others = [other for other in measured if other.clock_hz == row.clock_hz and other.task != row.task]
        per_access, static_w = _two_terms([(counted[o.task], o.latency_s, o.energy_j or 0.0) for o in others])
        errors[row] = (per_access * counted[row.task] + static_w * row.latency_s) / (row.energy_j or 1.0) - 1
    return errors


def _two_terms(points: list[tuple[float, float, float]]) -> tuple[float, float]:
    """a, b >= 0 that minimize the sum of ((a x + b t) / y - 1)^2 over points (x, t, y)."""
    xx = sum((x / y) ** 2 for x, _, y in points)
    tt = sum((t / y) ** 2 for _, t, y in points)
    xt = sum(x * t / y**2 for x, t, y in points)
    x1, t1 = sum(x / y for x, _, y in points), sum(t / y for _, t, y in points)
    determinant = xx * tt - xt * xt
    a, b = (x1 * tt - t1 * xt) / determinant, (t1 * xx - x1 * xt) / determinant
    if a < 0:
        return 0.0, t1 / tt
    return (x1 / xx, 0.0) if b < 0 else (a, b)


def mean_error(errors: Iterable[float]) -> float:
    """Mean of the absolute errors."""
    return fmean(abs(error) for error in errors)


def _left_out(key: Callable[[Row], Hashable]) -> Errors:
    errors: Errors = {}
    for left in dict.fromkeys(key(row) for row in mcu_rows()):
        parameters = fit([row for row in mcu_rows() if key(row) != left], mcu_rows())
        errors |= {r: predicted_cycles(parameters, r) / r.cycles - 1 for r in mcu_rows() if key(r) == left}
    return {row: errors[row] for row in mcu_rows()}


def _power(same: Callable[[Row, Row], bool]) -> Errors:
    measured = [row for row in rows() if row.energy_j is not None and row.core != "accelerator"]
    errors = {}
    for row in measured:
        watts = [(other.energy_j or 0.0) / other.latency_s for other in measured if same(row, other)]
        if watts:
            errors[row] = fmean(watts) * row.latency_s / (row.energy_j or 1.0) - 1
    return errors


def _system(row: Row) -> tuple[object, ...]:
    return row.board, row.library, row.release, row.clock_hz


def _macs(row: Row) -> int:
    return network.load(tables()["networks"][row.task]).macs
