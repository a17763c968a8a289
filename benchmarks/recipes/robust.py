"""Nearest neighbours under attack on MNIST: success of the defence before and after fine-tuning without labels.

    python benchmarks/recipes/robust.py --data-dir DATA

An encoder is trained without labels (NT-Xent on every streamed instance), with labels, or with labels and attacks
(TRADES); then pairs of clean and attacked images fine-tune it. Prints a Markdown table.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import click
import shared

EPSILON = 0.06
"""Of pixels of which 255 is 1: the larger of the paper's two."""
ENCODERS: dict[str, dict[str, Any]] = {
    "contrast": {
        "recipe": "contrast", "contrast.policy": "fifo", "contrast.dimensions": 64, "contrast.temperature": 0.1,
    },
    "supervised": {"recipe": "supervised"},
    "TRADES": {
        "recipe": "self-adaptive", "self_adaptive.start": 1.0, "self_adaptive.trades": 6.0,
        "self_adaptive.epsilon": EPSILON, "self_adaptive.attack_steps": 5,
    },
}  # fmt: skip
"""A buffer of a mini-batch that is replaced by each of a shuffled stream is plain SimCLR. TRADES: targets that never
move, and the weight 6 of its authors (Zhang et al. 2019, arXiv 1901.08573)."""


@click.command()
@shared.options("runs/robust")
@shared.bits_option
@click.option("--encoder-steps", default=600, show_default=True)
@click.option("--steps", default=200, show_default=True)
@click.option("--lr", default=0.01, show_default=True, help="Of the fine-tuning.")
def main(
    data_dir: str, out: str, seeds: int, widths: tuple[int, ...], encoder_steps: int, steps: int, lr: float
) -> None:
    """Train what is missing and print the table."""
    shared.header(
        "encoder", "bits", "accuracy % before", "after", "defence success % before", "after", "encoder's MCU J",
        f"fine-tuning's {shared.ENERGIES}",
    )  # fmt: skip
    for bits, (encoder, options) in itertools.product(widths, ENCODERS.items()):
        common = {"data.flip": False, "numbers.bits": bits}
        starts, tuned = [], []
        for seed in range(seeds):
            name = f"{encoder}-{bits}"
            starts.append(shared.run(out, data_dir, name, seed, {**common, "train.steps": encoder_steps, **options}))
            settings = {
                "recipe": "adversarial", "init": str(Path(starts[-1]["run"]) / "weights.safetensors"),
                "adversarial.dimensions": options.get("contrast.dimensions", 10), "adversarial.epsilon": EPSILON,
                "optimizer.lr": lr, "train.steps": steps, **common,
            }  # fmt: skip
            tuned.append(shared.run(out, data_dir, f"{name}-tuned", seed, settings))
        accuracies = [shared.percent([r[key] for r in tuned], 1) for key in ("accuracy_before", "accuracy")]
        rates = [
            shared.percent([r[key]["defence_success_rate"] for r in tuned], 1) for key in ("details_before", "details")
        ]
        shared.row(encoder, bits, *accuracies, *rates, f"{shared.energy_j(starts, 0):.3g}", shared.energies(tuned))


if __name__ == "__main__":
    main()
