"""Few labels: Sinkhorn label allocation, FixMatch, and the labelled instances alone, on MNIST or CIFAR-10.

    python benchmarks/recipes/few_labels.py --data-dir DATA
    python benchmarks/recipes/few_labels.py --data cifar10 --data-dir DATA --labels 250 --out runs/few-cifar

Prints a Markdown table: accuracy with its range over the seeds, and the energy of a run.
"""

from __future__ import annotations

import itertools
from typing import Any

import click
import shared

METHODS: dict[str, dict[str, Any]] = {
    "labelled only": {"recipe": "supervised", "data.augment": True},
    "FixMatch": {"recipe": "sinkhorn", "sinkhorn.allocation": "fixmatch"},
    "Sinkhorn": {"recipe": "sinkhorn"},
}
"""The labelled instances alone are shifted at random, as the weak views of the others."""

SHAPES = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


@click.command()
@shared.options("runs/few")
@shared.bits_option
@click.option("--data", "dataset", type=click.Choice(list(SHAPES)), default="mnist", show_default=True)
@click.option("--model", default="lenet5", show_default=True)
@click.option("--labels", "numbers", type=int, multiple=True, default=(40, 250), show_default=True)
@click.option("--steps", default=400, show_default=True, help="Of 64 streamed and 64 labelled instances.")
def main(
    data_dir: str, out: str, seeds: int, widths: tuple[int, ...], dataset: str, model: str, numbers: tuple[int, ...],
    steps: int,
) -> None:  # fmt: skip
    """Train what is missing and print the table."""
    shared.header("labels", "bits", "method", "accuracy %", shared.ENERGIES)
    for bits, labels, method in itertools.product(widths, numbers, METHODS):
        settings = {
            "model": model, "input_shape": SHAPES[dataset], "data.name": dataset, "data.flip": dataset != "mnist",
            "data.n_labels": labels,
            "numbers.bits": bits, "train.steps": steps, "run.checkpoint_every": steps, **METHODS[method],
        }  # fmt: skip
        name = f"{method.replace(' ', '-').lower()}-{labels}-{bits}"
        results = [shared.run(out, data_dir, name, seed, settings) for seed in range(seeds)]
        accuracy = shared.percent([result["accuracy"] for result in results])
        shared.row(labels, bits, method, accuracy, shared.energies(results))


if __name__ == "__main__":
    main()
