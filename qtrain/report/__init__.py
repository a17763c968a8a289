"""Reading finished runs: comparison tables, Pareto fronts, budgets and the HTML report. Needs no torch."""

from qtrain.report.budget import Budget
from qtrain.report.comparison import Row, compare
from qtrain.report.runs import FinishedRun, read_runs

__all__ = ["Budget", "FinishedRun", "Row", "compare", "read_runs"]
