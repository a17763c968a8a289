"""Labels allocated to unlabelled instances by optimal transport, in log space.

Tai, Bailis, Valiant, "Sinkhorn Label Allocation", ICML 2021 (arXiv 2102.08622): with costs C [n, k] (negative log
probabilities), upper bounds b_j on the classes' shares and the share rho to be labelled,
    min sum Q C   subject to   sum_j Q_ij <= 1,  sum_i Q_ij <= n b_j,  sum Q >= rho n,
made an equality by a slack row and a slack column of cost 0, regularized by entropy and scaled alternately.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WARM_ITERATIONS, MAX_ITERATIONS = 50, 1000
ANNEALING = (1 / 64, 1 / 16, 1 / 4, 1.0)
"""Shares of reg at which a problem far from the last one is solved in turn (chosen here)."""
FARTHEST, SMALLEST = 30.0, 1e-250
"""How far log scalings move before they are put into the exponentials again, and the least sum taken as it is: between
them no row's sum can vanish (log-stabilized scaling, Schmitzer 2019)."""
WILSON_Z = 1.96
"""Normal quantile of the two-sided 95 % interval; the level is not stated by the paper."""


def margins(n: int, bounds: Floats, rho: float) -> tuple[Floats, Floats]:
    """(row sums [n + 1], column sums [k + 1]), slack last; both sum to the same. mu = 1 - sum b."""
    k = len(bounds)
    mu = 1 - float(bounds.sum())
    rows, columns = np.ones(n + 1), np.ones(k + 1)
    rows[n] = 1 + k + n * (1 - rho - min(mu, 0.0))
    columns[:k] += n * bounds
    columns[k] += n * (1 - rho + max(mu, 0.0))
    return rows, columns


def upper_bounds(labels: NDArray[np.int64], n_classes: int, kind: str) -> Floats:
    """Bounds b [n_classes] from the labels known: "empirical" shares, their "wilson" upper limits (Wilson 1927), or
    "none" (1)."""
    n = len(labels)
    share = np.bincount(labels, minlength=n_classes) / n
    if kind == "none":
        return np.ones(n_classes)
    if kind == "empirical":
        return share
    z2 = WILSON_Z**2
    middle = share + z2 / (2 * n)
    spread = WILSON_Z * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return np.asarray((middle + spread) / (1 + z2 / n))


class Allocation:
    """The transport plan of n instances over k classes, kept warm: only the columns' log scalings v [k + 1] are held,
    since the rows' follow from them.

    Instances whose `cost` row is still NaN, never having been met, take no part: a run of less than an epoch would
    otherwise have to label most of those it has met while it knows nothing (the paper's runs have many epochs).
    """

    def __init__(self, n: int, bounds: Floats, reg: float, tolerance: float) -> None:
        k = len(bounds)
        self.bounds, self.reg, self.tolerance = bounds, reg, tolerance
        self.cost = np.full((n, k), np.nan, dtype=np.float32)
        self.v = np.zeros(k + 1)

    def labels(self, cost: NDArray[Any]) -> Floats:
        """Soft labels Q [m, k] of instances with these costs [m, k] at the present scalings: rows of a softmax over
        the classes and the slack, so that a row sums to less than 1."""
        scaled = self._with_slack(-self.reg * cost) + self.v
        scaled -= scaled.max(1, keepdims=True)
        weights = np.exp(scaled)
        return np.asarray((weights / weights.sum(1, keepdims=True))[:, :-1])

    def solve(self, rho: float) -> int:
        """Scale until every column's sum is met to `tolerance` of its target; returns the iterations made.

        Where the scalings of before are too far off, it starts from a smoother problem (a smaller reg), whose solution
        starts the next: otherwise the iterations grow with reg times the largest cost.
        """
        cost = self.cost[~np.isnan(self.cost[:, 0])]
        if not len(cost):
            return 0
        rows, columns = margins(len(cost), self.bounds, rho)
        made, met = self._scale(cost, rows, columns, self.reg, WARM_ITERATIONS)
        if met:
            return made
        for factor in ANNEALING:
            self.v *= factor
            reg = self.reg * factor
            more, _ = self._scale(cost, rows, columns, reg, MAX_ITERATIONS)
            self.v /= factor
            made += more
        return made

    def _scale(self, cost: NDArray[Any], rows: Floats, columns: Floats, reg: float, limit: int) -> tuple[int, bool]:
        """At most `limit` iterations; (how many were made, whether the columns are met)."""
        kernel = np.zeros((len(rows), len(columns)))
        kernel[:-1] = self._with_slack(-reg * cost)
        log_columns = np.log(columns)
        absorbed = np.full_like(self.v, np.inf)
        for iteration in range(1, limit + 1):
            if not np.abs(self.v - absorbed).max() < FARTHEST:  # exponentials anew; in between products are enough
                absorbed, scaled = self.v.copy(), kernel + self.v
                weights = np.exp(scaled - scaled.max(1, keepdims=True))
            factors = np.exp(self.v - absorbed)
            sums = factors * ((rows / (weights @ factors)) @ weights)
            log_sums = np.log(sums) if sums.min() > SMALLEST else _log_column_sums(kernel + self.v, rows)
            if np.abs(np.exp(log_sums - log_columns) - 1).max() <= self.tolerance:
                return iteration, True
            self.v += log_columns - log_sums
            self.v -= self.v[-1]  # a common factor cancels in the rows
        return limit, False

    def plan(self) -> Floats:
        """Q [n, k] of all instances, NaN for those never met."""
        return self.labels(self.cost)

    @staticmethod
    def _with_slack(scaled: NDArray[Any]) -> Floats:
        return np.concatenate([scaled, np.zeros((len(scaled), 1))], 1, dtype=np.float64)


def _log_column_sums(scaled: Floats, rows: Floats) -> Floats:
    """log of the columns' sums of exp(scaled), its rows brought to the sums `rows`: where a class is so unlikely that
    its sum is no float64."""
    top = scaled.max(1, keepdims=True)
    share = rows[:, None] / np.exp(scaled - top).sum(1, keepdims=True)
    logs = scaled - top + np.log(share)
    highest = logs.max(0)
    return np.asarray(np.log(np.exp(logs - highest).sum(0)) + highest)
