"""MNIST with wrong labels: self-adaptive training against plain cross-entropy, accuracy of the last epoch.

    python benchmarks/recipes/noisy_labels.py --data-dir DATA --out runs/noisy

Every row is a run in a folder of its own: stopped and started again, finished rows are reread. Prints a Markdown table
of mean and range over the seeds, selective error, and the energy of a run on the first device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment

RECIPES = ("supervised", "self-adaptive")


def rows(noises: tuple[float, ...], bits: tuple[int, ...], seeds: int, **settings: Any) -> Iterator[dict[str, Any]]:
    """One entry for each recipe, noise and width: the results of its seeds."""
    for width, noise, recipe in itertools.product(bits, noises, RECIPES):
        results = [run(recipe, noise, width, seed, **settings) for seed in range(seeds)]
        yield {"recipe": recipe, "noise": noise, "bits": width, "results": results}


def run(
    recipe: str, noise: float, bits: int, seed: int, out: str, data_dir: str, instances: int, epochs: int
) -> dict[str, Any]:
    """The result of one run, trained if it was not before."""
    experiment = Experiment(recipe=recipe, model="lenet5", seed=seed).with_options({
        "data.name": "mnist", "data.dir": data_dir, "data.label_noise": noise, "data.n_labels": instances,
        "numbers.bits": bits, "filter.kind": "none", "prune.kind": "none", "train.epochs": epochs,
        "run.out": str(Path(out) / f"{recipe}-{noise:g}-{bits}-{seed}"), "run.threads": 1,
        "run.devices": ("stm32l4r5", "eyeriss"),
    })  # fmt: skip
    return simulate_experiment(experiment)


def spread(values: list[float]) -> str:
    """Mean and range in percent."""
    mean = 100 * sum(values) / len(values)
    return f"{mean:.2f} ({100 * min(values):.2f} to {100 * max(values):.2f})" if len(values) > 1 else f"{mean:.2f}"


@click.command()
@click.option("--data-dir", default="data", show_default=True)
@click.option("--out", default="runs/noisy", show_default=True)
@click.option("--noise", "noises", type=float, multiple=True, default=(0.2, 0.4, 0.6, 0.8), show_default=True)
@click.option("--bits", type=int, multiple=True, default=(32, 8), show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--instances", default=10_000, show_default=True, help="Training instances, equally many a class.")
@click.option("--epochs", default=30, show_default=True)
def main(**options: Any) -> None:
    """Train what is missing and print the table."""
    print("| noise | bits | recipe | seeds | accuracy % | error % at coverage 0.9, 0.8 | MCU J | accelerator J |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(**options):
        results = row["results"]
        table = [r["details"].get("selective_error", {}) for r in results]
        selective = ", ".join(
            f"{100 * sum(t[c] for t in table) / len(table):.2f}" for c in ("0.9", "0.8") if all(c in t for t in table)
        )
        energies = " | ".join(f"{bill['energy_j']:.3g}" for bill in results[0]["bills"])
        accuracy = spread([r["accuracy"] for r in results])
        print(
            f"| {row['noise']:g} | {row['bits']} | {row['recipe']} | {len(results)} | {accuracy} | {selective or '-'} "
            f"| {energies} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
