"""A deployed network whose camera was turned: accuracy won back and the energy it took, by ways to train.

    python benchmarks/recipes/adapt.py --data-dir DATA --out runs/adapt

LeNet-5 is trained on MNIST in float32, deployed on digits turned by 45 degrees and adapted on a stream of them. Every
row is a run in a folder of its own: stopped and started again, finished rows are reread. Prints a Markdown table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment

DENSE = {"filter.kind": "none", "prune.kind": "none"}
WAYS: dict[str, dict[str, Any]] = {
    "all layers, float32": {**DENSE, "numbers.bits": 32},
    "all layers, 8 bit": {**DENSE, "numbers.bits": 8},
    "last layer, 8 bit": {**DENSE, "numbers.bits": 8, "train.layers": "fc"},
    "filtered and pruned, 8 bit": {"numbers.bits": 8},
}


def run(way: str, seed: int, out: str, data_dir: str, pretrain_steps: int, steps: int) -> dict[str, Any]:
    """The result of one run, made if it was not before."""
    name = way.replace(",", "").replace(" ", "-")
    experiment = Experiment(model="lenet5", seed=seed).with_options({
        "data.name": "mnist", "data.dir": data_dir, "stream.scenario": "adapt", "stream.drift": "rotation",
        "stream.pretrain_steps": pretrain_steps, "train.steps": steps, "run.threads": 1,
        "run.devices": ("stm32l4r5", "eyeriss"), "run.out": str(Path(out) / f"{name}-{seed}"), **WAYS[way],
    })  # fmt: skip
    return simulate_experiment(experiment)


@click.command()
@click.option("--data-dir", default="data", show_default=True)
@click.option("--out", default="runs/adapt", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--pretrain-steps", default=600, show_default=True)
@click.option("--steps", default=600, show_default=True)
def main(seeds: int, **options: Any) -> None:
    """Train what is missing and print the table."""
    print("| trained | seeds | source % | before % | during % | after % | MCU J | accelerator J |")
    print("|---|---|---|---|---|---|---|---|")
    for way in WAYS:
        results = [run(way, seed, **options) for seed in range(seeds)]
        keys = ("source_accuracy", "accuracy_before", "prequential_accuracy", "accuracy")
        shares = " | ".join(f"{100 * sum(r[key] for r in results) / seeds:.2f}" for key in keys)
        energies = " | ".join(f"{sum(r['bills'][i]['energy_j'] for r in results) / seeds:.3g}" for i in range(2))
        print(f"| {way} | {seeds} | {shares} | {energies} |", flush=True)


if __name__ == "__main__":
    main()
