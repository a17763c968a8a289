"""MNIST as a correlated stream without labels: what a small buffer should keep.

    python benchmarks/recipes/correlated.py --data-dir DATA --out runs/correlated

Accuracy is that of linear classifiers on the frozen features with 20, 200 and 2,000 labels. Every row is a run in a
folder of its own: stopped and started again, finished rows are reread. Prints a Markdown table.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click

from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment

POLICIES = (("score", 1), ("score", 5), ("score", 20), ("random", 1), ("fifo", 1), ("k-centre", 1))
"""Policy, and steps after which a kept instance is scored again."""


def run(
    policy: str, interval: int, run_length: int, bits: int, seed: int, out: str, data_dir: str, steps: int
) -> dict[str, Any]:
    """The result of one run, trained if it was not before."""
    experiment = Experiment(model="lenet5", recipe="contrast", seed=seed).with_options({
        "data.name": "mnist", "data.dir": data_dir, "data.flip": False, "stream.kind": "correlated",
        "stream.run_length": run_length, "contrast.policy": policy, "contrast.interval": interval,
        "numbers.bits": bits, "filter.kind": "none", "prune.kind": "none", "train.steps": steps, "run.threads": 1,
        "run.devices": ("stm32l4r5", "eyeriss"),
        "run.out": str(Path(out) / f"{policy}-{interval}-{run_length}-{bits}-{seed}"),
    })  # fmt: skip
    return simulate_experiment(experiment)


@click.command()
@click.option("--data-dir", default="data", show_default=True)
@click.option("--out", default="runs/correlated", show_default=True)
@click.option("--run-length", "run_lengths", type=int, multiple=True, default=(1, 50, 500), show_default=True)
@click.option("--bits", default=8, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=900, show_default=True)
def main(run_lengths: tuple[int, ...], seeds: int, **options: Any) -> None:
    """Train what is missing and print the table."""
    print("| run length | policy | scored again after | seeds | accuracy % at 20, 200, 2000 labels | MCU J |")
    print("|---|---|---|---|---|---|")
    for run_length, (policy, interval) in itertools.product(run_lengths, POLICIES):
        results = [run(policy, interval, run_length, seed=seed, **options) for seed in range(seeds)]
        tables = [r["details"]["linear_accuracy_by_labels"] for r in results]
        accuracies = ", ".join(f"{100 * sum(t[n] for t in tables) / seeds:.2f}" for n in tables[0])
        energy = sum(r["bills"][0]["energy_j"] for r in results) / seeds
        print(f"| {run_length} | {policy} | {interval} | {seeds} | {accuracies} | {energy:.3g} |", flush=True)


if __name__ == "__main__":
    main()
