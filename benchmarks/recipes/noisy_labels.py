"""MNIST with wrong labels: self-adaptive training against plain cross-entropy, accuracy of the last epoch.

    python benchmarks/recipes/noisy_labels.py --data-dir DATA

Prints a Markdown table: accuracy with its range over the seeds, selective error, and the energy of a run.
"""

from __future__ import annotations

import itertools

import click
import shared

RECIPES = ("supervised", "self-adaptive")
COVERAGES = ("1", "0.95", "0.9", "0.85", "0.8")


def selective(results: list[shared.Result]) -> str:
    """Mean error in percent among the instances the network is surest of, at each of COVERAGES."""
    tables = [result["details"].get("selective_error") for result in results]
    if None in tables:
        return "-"
    return ", ".join(f"{100 * sum(table[c] for table in tables) / len(tables):.2f}" for c in COVERAGES)


@click.command()
@shared.options("runs/noisy")
@shared.bits_option
@click.option("--noise", "noises", type=float, multiple=True, default=(0.2, 0.4, 0.6, 0.8), show_default=True)
@click.option("--instances", default=5000, show_default=True, help="Training instances, equally many a class.")
@click.option("--epochs", default=20, show_default=True)
def main(
    data_dir: str, out: str, seeds: int, widths: tuple[int, ...], noises: tuple[float, ...], instances: int, epochs: int
) -> None:
    """Train what is missing and print the table."""
    shared.header("noise", "bits", "recipe", "accuracy %", f"error % at {', '.join(COVERAGES)}", shared.ENERGIES)
    for bits, noise, recipe in itertools.product(widths, noises, RECIPES):
        settings = {
            "recipe": recipe, "data.label_noise": noise, "data.n_labels": instances,
            "numbers.bits": bits, "train.epochs": epochs,
        }  # fmt: skip
        name = f"{recipe}-{noise:g}-{bits}"
        results = [shared.run(out, data_dir, name, seed, settings) for seed in range(seeds)]
        accuracy = shared.percent([result["accuracy"] for result in results])
        shared.row(noise, bits, recipe, accuracy, selective(results), shared.energies(results))


if __name__ == "__main__":
    main()
