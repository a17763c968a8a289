"""Nearest neighbours under attack on MNIST: success of the defence before and after fine-tuning.

    python benchmarks/recipes/robust.py --data-dir DATA --out runs/robust

An encoder is trained with labels or by selective contrast; then pairs of clean and attacked images fine-tune it. Every
run has a folder of its own: stopped and started again, finished ones are reread. Prints a Markdown table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment

DIMENSIONS = 64


def trained(name: str, seed: int, out: str, data_dir: str, bits: int, **options: Any) -> dict[str, Any]:
    """The result of one run, trained if it was not before."""
    experiment = Experiment(model="lenet5", seed=seed, n_classes=0).with_options({
        "data.name": "mnist", "data.dir": data_dir, "data.flip": False, "numbers.bits": bits, "filter.kind": "none",
        "prune.kind": "none", "run.threads": 1, "run.out": str(Path(out) / f"{name}-{bits}-{seed}"), **options,
    })  # fmt: skip
    return simulate_experiment(experiment)


@click.command()
@click.option("--data-dir", default="data", show_default=True)
@click.option("--out", default="runs/robust", show_default=True)
@click.option("--bits", default=32, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--encoder-steps", default=600, show_default=True)
@click.option("--steps", default=200, show_default=True)
@click.option("--epsilon", default=0.06, show_default=True, help="Of pixels of which 255 is 1.")
@click.option("--lr", default=0.01, show_default=True, help="Of the fine-tuning.")
def main(seeds: int, encoder_steps: int, steps: int, epsilon: float, lr: float, **common: Any) -> None:
    """Train what is missing and print the table."""
    print("| encoder | seeds | accuracy % before, after | defence success % before, after | MCU J of the fine-tuning |")
    print("|---|---|---|---|---|")
    encoders = {"supervised": {"n_classes": DIMENSIONS}, "contrast": {"contrast.dimensions": DIMENSIONS}}
    for encoder, options in encoders.items():
        results = []
        for seed in range(seeds):
            start = trained(encoder, seed, recipe=encoder, **{"train.steps": encoder_steps}, **options, **common)
            results.append(trained(
                f"{encoder}-tuned", seed, recipe="adversarial", init=str(Path(start["run"]) / "weights.safetensors"),
                **{"train.steps": steps, "optimizer.lr": lr, "adversarial.epsilon": epsilon,
                   "adversarial.dimensions": DIMENSIONS}, **common,
            ))  # fmt: skip
        accuracies = [100 * sum(r[key] for r in results) / seeds for key in ("accuracy_before", "accuracy")]
        rates = [
            100 * sum(r[key]["defence_success_rate"] for r in results) / seeds for key in ("details_before", "details")
        ]
        energy = sum(r["bills"][0]["energy_j"] for r in results) / seeds
        print(
            f"| {encoder} | {seeds} | {accuracies[0]:.2f}, {accuracies[1]:.2f} | {rates[0]:.1f}, {rates[1]:.1f} "
            f"| {energy:.3g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
