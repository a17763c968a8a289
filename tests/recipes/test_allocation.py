"""Sinkhorn label allocation: a transport plan that meets its constraints and costs hardly more than the best one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from qtrain.recipes.allocation import Allocation, margins, upper_bounds

TOLERANCE = 1e-3


@st.composite
def problems(draw):
    n, k = draw(st.integers(3, 9)), draw(st.integers(2, 4))
    cost = np.array(draw(st.lists(st.floats(0.0, 5.0), min_size=n * k, max_size=n * k))).reshape(n, k)
    bounds = np.array(draw(st.lists(st.floats(0.05, 1.0), min_size=k, max_size=k)))
    return cost, bounds, draw(st.floats(0.0, 1.0))


def solved(cost, bounds, rho, reg):
    allocation = Allocation(len(cost), bounds, reg, TOLERANCE)
    allocation.cost = cost
    allocation.solve(rho)
    return allocation.plan()


@given(problems())
@settings(max_examples=40, deadline=None)
def test_the_allocation_meets_its_constraints(problem):
    cost, bounds, rho = problem
    n = len(cost)
    plan = solved(cost, bounds, rho, reg=10.0)
    assert (plan >= 0).all()
    assert (plan.sum(1) <= 1 + 1e-9).all()
    # a column's target is 1 + n b_j, the slack row's part of it included; it is met to the tolerance
    assert (plan.sum(0) <= (1 + n * bounds) * (1 + TOLERANCE)).all()
    # the slack column may take 1 + n (1 - rho + max(mu, 0)) of the n that the rows have
    slack = (1 + n * (1 - rho + max(1 - bounds.sum(), 0.0))) * (1 + TOLERANCE)
    assert plan.sum() >= n - slack - 1e-9


@given(problems())
@settings(max_examples=40, deadline=None)
def test_it_costs_at_most_the_entropy_more_than_the_linear_program(problem):
    """The regularized plan Q minimizes <C, Q> - H(Q) / reg among the plans of its own margins, so that it costs at most
    (H(Q) - H(Q*)) / reg more than the cheapest of them, Q*. With row sums r, H(Q) - H(Q*) is at most
    sum r log(k + 1): each row's mass spread evenly against put in one place."""
    cost, bounds, rho = problem
    reg, (n, k) = 50.0, cost.shape
    allocation = Allocation(n, bounds, reg, TOLERANCE)
    allocation.cost = cost
    allocation.solve(rho)
    rows, _ = margins(n, bounds, rho)
    slack_row = np.exp(allocation.v - allocation.v.max())
    labelled = allocation.plan()
    plan = np.vstack([np.column_stack([labelled, 1 - labelled.sum(1)]), rows[n] * slack_row / slack_row.sum()])
    full = np.zeros((n + 1, k + 1))
    full[:n, :k] = cost
    sums = np.vstack([np.kron(np.eye(n + 1), np.ones(k + 1)), np.kron(np.ones(n + 1), np.eye(k + 1))])
    best = linprog(full.ravel(), A_eq=sums[:-1], b_eq=np.concatenate([rows, plan.sum(0)])[:-1], bounds=(0, None))
    assert best.status == 0
    gap = (plan * full).sum() - best.fun
    assert -1e-6 <= gap <= rows.sum() * math.log(k + 1) / reg + 1e-6


def test_margins_balance_and_follow_the_paper():
    # n = 10, k = 2, b = (.3, .4): mu = 1 - .7 = .3; rho = .5
    rows, columns = margins(10, np.array([0.3, 0.4]), 0.5)
    assert rows[-1] == pytest.approx(1 + 2 + 10 * (1 - 0.5))  # min(mu, 0) = 0
    assert columns == pytest.approx([1 + 3, 1 + 4, 1 + 10 * (1 - 0.5 + 0.3)])
    assert rows.sum() == pytest.approx(columns.sum())
    rows, columns = margins(10, np.ones(2), 0.5)  # mu = -1
    assert rows[-1] == pytest.approx(1 + 2 + 10 * (0.5 + 1))
    assert rows.sum() == pytest.approx(columns.sum())


def test_a_clear_case_is_labelled_as_it_should_be():
    # two instances surely of class 0, two of class 1, everything to be labelled, no bounds
    cost = np.array([[0.0, 5.0], [0.0, 5.0], [5.0, 0.0], [5.0, 0.0]])
    plan = solved(cost, np.ones(2), 1.0, reg=100.0)
    assert plan[[0, 1], 0].min() > 0.5
    assert plan[[2, 3], 1].min() > 0.5
    assert plan[[0, 1], 1].max() < 1e-6


def test_a_bound_moves_the_cheapest_instances_to_another_class():
    # all six look like class 0, the last two least; bounds of one third: at most 1 + 6/3 = 3 of them stay there
    cost = np.array([[0.0, 3.0]] * 4 + [[0.0, 0.1]] * 2)
    plan = solved(cost, np.array([1 / 3, 2 / 3]), 1.0, reg=100.0)
    assert plan[:, 0].sum() <= 3 * (1 + TOLERANCE)
    assert plan[4:, 1].min() > 0.5
    assert plan[:4, 1].max() < 0.01


@pytest.mark.parametrize("kind", ["empirical", "wilson", "none"])
def test_bounds(kind):
    bounds = upper_bounds(np.array([0, 0, 0, 1]), 3, kind)
    if kind == "none":
        assert (bounds == 1).all()
    elif kind == "empirical":
        assert bounds == pytest.approx([0.75, 0.25, 0.0])
    else:  # Wilson for 0 of 4: z^2 / (n + z^2) = 3.8416 / 7.8416
        assert bounds[2] == pytest.approx(3.8416 / 7.8416)
        assert (bounds > [0.75, 0.25, 0.0]).all()


def test_an_unlikely_class_does_not_break_the_scaling():
    cost = np.full((5, 2), 1.0)
    cost[:, 1] = 27.0  # exp(-100 x 27) is no float64
    plan = solved(cost, np.array([0.2, 1.0]), 1.0, reg=100.0)
    assert np.isfinite(plan).all()
    assert plan[:, 0].sum() <= (1 + 1) * (1 + TOLERANCE)


def test_instances_never_met_take_no_part():
    cost = np.array([[0.0, 5.0], [5.0, 0.0], [1.0, 1.0]])
    few, more = Allocation(3, np.ones(2), 100.0, TOLERANCE), Allocation(9, np.ones(2), 100.0, TOLERANCE)
    assert more.solve(0.5) == 0  # nobody is known
    few.cost[:] = more.cost[2:5] = cost
    few.solve(0.5)
    more.solve(0.5)
    assert more.plan()[2:5] == pytest.approx(few.plan())
