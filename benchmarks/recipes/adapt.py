"""A deployed network whose camera was turned: accuracy won back and the energy it took, by ways to train.

    python benchmarks/recipes/adapt.py --data-dir DATA

LeNet-5 is trained on MNIST in float32, deployed on digits turned by 45 degrees and adapted on a stream of them, for
several lengths of it. Prints a Markdown table.
"""

from __future__ import annotations

import itertools
from typing import Any

import click
import shared

WAYS: dict[str, dict[str, Any]] = {
    "all layers, float32": {"numbers.bits": 32},
    "all layers, 8 bit": {"numbers.bits": 8},
    "last layer, 8 bit": {"numbers.bits": 8, "train.layers": "fc"},
    "EIF + EMP, 8 bit": {"numbers.bits": 8, "filter.kind": "instance", "prune.kind": "channel"},
}


@click.command()
@shared.options("runs/adapt")
@click.option("--pretrain-steps", default=400, show_default=True)
@click.option("--steps", "lengths", type=int, multiple=True, default=(150, 450), show_default=True)
def main(data_dir: str, out: str, seeds: int, pretrain_steps: int, lengths: tuple[int, ...]) -> None:
    """Train what is missing and print the table."""
    shared.header("trained", "steps", "source %", "before %", "during %", "after %", shared.ENERGIES)
    for way, steps in itertools.product(WAYS, lengths):
        settings = {
            "stream.scenario": "adapt", "stream.drift": "rotation", "stream.pretrain_steps": pretrain_steps,
            "train.steps": steps, **WAYS[way],
        }  # fmt: skip
        name = f"{way.replace(',', '').replace(' ', '-').lower()}-{steps}"
        results = [shared.run(out, data_dir, name, seed, settings) for seed in range(seeds)]
        keys = ("source_accuracy", "accuracy_before", "prequential_accuracy")
        means = [f"{100 * sum(result[key] for result in results) / seeds:.2f}" for key in keys]
        after = shared.percent([result["accuracy"] for result in results])
        shared.row(way, steps, *means, after, shared.energies(results))


if __name__ == "__main__":
    main()
