"""MNIST with few labels: Sinkhorn label allocation, FixMatch, and the labelled instances alone.

    python benchmarks/recipes/few_labels.py --data-dir DATA --out runs/few

Every row is a run in a folder of its own: stopped and started again, finished rows are reread. Prints a Markdown table.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click

from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment

METHODS: dict[str, dict[str, Any]] = {
    "labelled only, random shifts": {"recipe": "supervised", "data.augment": True},
    "FixMatch": {"recipe": "sinkhorn", "sinkhorn.allocation": "fixmatch"},
    "Sinkhorn": {"recipe": "sinkhorn"},
}


def run(method: str, labels: int, bits: int, seed: int, out: str, data_dir: str, steps: int) -> dict[str, Any]:
    """The result of one run, trained if it was not before."""
    name = method.split(",")[0].replace(" ", "-").lower()
    experiment = Experiment(model="lenet5", seed=seed).with_options({
        "data.name": "mnist", "data.dir": data_dir, "data.n_labels": labels, "data.flip": False, "numbers.bits": bits,
        "filter.kind": "none", "prune.kind": "none", "train.steps": steps, "run.threads": 1,
        "run.checkpoint_every": steps, "run.devices": ("stm32l4r5", "eyeriss"),
        "run.out": str(Path(out) / f"{name}-{labels}-{bits}-{seed}"), **METHODS[method],
    })  # fmt: skip
    return simulate_experiment(experiment)


@click.command()
@click.option("--data-dir", default="data", show_default=True)
@click.option("--out", default="runs/few", show_default=True)
@click.option("--labels", "numbers", type=int, multiple=True, default=(40, 250), show_default=True)
@click.option("--bits", "widths", type=int, multiple=True, default=(32, 8), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=1000, show_default=True, help="Of 64 streamed and 64 labelled instances.")
def main(numbers: tuple[int, ...], widths: tuple[int, ...], seeds: int, **options: Any) -> None:
    """Train what is missing and print the table."""
    print("| labels | bits | method | seeds | accuracy % (lowest) | MCU J | accelerator J |")
    print("|---|---|---|---|---|---|---|")
    for width, labels, method in itertools.product(widths, numbers, METHODS):
        results = [run(method, labels, width, seed, **options) for seed in range(seeds)]
        accuracies = [100 * r["accuracy"] for r in results]
        energies = " | ".join(f"{sum(r['bills'][i]['energy_j'] for r in results) / seeds:.3g}" for i in range(2))
        print(
            f"| {labels} | {width} | {method} | {seeds} | {sum(accuracies) / seeds:.2f} ({min(accuracies):.2f}) "
            f"| {energies} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
