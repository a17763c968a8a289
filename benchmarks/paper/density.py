"""What stochastic pruning leaves of real gradients, layer by layer, beside what it leaves of normal ones."""

from __future__ import annotations

import math
from statistics import NormalDist

from benchmarks.paper.clock import seconds
from benchmarks.paper.rows import Options, Table
from qtrain.experiment import Experiment
from qtrain.training.pruned import pruning_report
from qtrain.training.record import run_record
from qtrain.training.setup import build

NOTHING = 1e-6
"""A rate whose threshold is below nearly every element: what is non-zero before pruning."""


def of_normal(rate: float) -> float:
    """Density left of N(0, sigma^2): P(|g| >= tau) + E[|g|; |g| < tau] / tau with tau = s sigma, which is
    (1 - rate) + sqrt(2 / pi) (1 - e^(-s^2 / 2)) / s (arXiv 1908.00173, section 3)."""
    s = NormalDist().inv_cdf((1 + rate) / 2)
    return 1 - rate + math.sqrt(2 / math.pi) * (1 - math.exp(-s * s / 2)) / s


def measured(table: Table, rate: float, n_steps: int, n_warm_up: int, more: Options) -> dict[str, float]:
    """Share of non-zero elements by layer: mean over `n_steps` of dense training pruned at `rate` from its start, at
    the first learning rate, without augmentation."""
    pruned = {"prune.kind": "stochastic", "prune.rate": rate}
    job = build(Experiment().with_options(table.options(table.reference, 1) | pruned | more))
    for step in range(n_warm_up + n_steps):
        if step == n_warm_up:
            job.net.counts.clear()
        seconds(job, step)  # which is not looked at
    return pruning_report(job.net.pruner, run_record(job, n_steps * job.experiment.train.batch_size).trace)["density"]


def markdown(table: Table, rates: tuple[float, ...], n_steps: int, n_warm_up: int, more: Options) -> str:
    """A row a layer, a column a rate; the first is what there was before pruning, in brackets the quotients by it."""
    before = measured(table, NOTHING, n_steps, n_warm_up, more)
    left = {rate: measured(table, rate, n_steps, n_warm_up, more) for rate in rates}
    lines = [
        "| layer | before | " + " | ".join(f"p {rate:g}" for rate in rates) + " |",
        "|---|---|" + "---|" * len(rates),
        "| of normal gradients | 1.00 | " + " | ".join(f"{of_normal(rate):.2f}" for rate in rates) + " |",
    ]
    for layer, whole in before.items():
        cells = " | ".join(f"{left[rate][layer]:.2f} ({left[rate][layer] / whole:.2f})" for rate in rates)
        lines.append(f"| {layer} | {whole:.2f} | {cells} |")
    return "\n".join(lines)
