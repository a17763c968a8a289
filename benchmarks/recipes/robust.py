"""Nearest neighbours under attack on MNIST: success of the defence before and after fine-tuning without labels.

    python benchmarks/recipes/robust.py --data-dir DATA

An encoder is trained without labels (NT-Xent on every streamed instance) and fine-tuned by pairs of clean and attacked
images; beside it stand networks trained with labels, and with labels and attacks (TRADES). Prints a Markdown table.
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
    "contrast": {"recipe": "contrast", "contrast.policy": "fifo", "contrast.dimensions": 64},
    "supervised": {"recipe": "supervised"},
    "TRADES": {
        "recipe": "self-adaptive", "self_adaptive.start": 1.0, "self_adaptive.trades": 6.0,
        "self_adaptive.epsilon": EPSILON, "self_adaptive.attack_steps": 3,
    },
}  # fmt: skip
"""A buffer of a mini-batch that is replaced by each of a shuffled stream is plain SimCLR. TRADES: targets that never
move, and the weight 6 of its authors (Zhang et al. 2019, arXiv 1901.08573)."""


@click.command()
@shared.options("runs/robust")
@shared.bits_option
@click.option("--encoder-steps", default=500, show_default=True)
@click.option("--steps", default=200, show_default=True)
@click.option("--lr", default=0.01, show_default=True, help="Of the fine-tuning.")
def main(
    data_dir: str, out: str, seeds: int, widths: tuple[int, ...], encoder_steps: int, steps: int, lr: float
) -> None:
    """Train what is missing and print the table."""
    shared.header(
        "encoder", "bits", "accuracy %", "defence success %", "accuracy % fine-tuned", "defence success % fine-tuned",
        "encoder's MCU J", f"fine-tuning's {shared.ENERGIES}",
    )  # fmt: skip
    for bits, (encoder, options) in itertools.product(widths, ENCODERS.items()):
        common = {"data.flip": False, "numbers.bits": bits}
        length = steps if encoder == "contrast" else 1  # the others are looked at before it
        starts, tuned = [], []
        for seed in range(seeds):
            name = f"{encoder}-{bits}"
            starts.append(shared.run(out, data_dir, name, seed, {**common, "train.steps": encoder_steps, **options}))
            settings = {
                "recipe": "adversarial", "init": str(Path(starts[-1]["run"]) / "weights.safetensors"),
                "adversarial.dimensions": options.get("contrast.dimensions", 10), "adversarial.epsilon": EPSILON,
                "optimizer.lr": lr, "train.steps": length, **common,
            }  # fmt: skip
            tuned.append(shared.run(out, data_dir, f"{name}-tuned", seed, settings))
        after, paid = (judged(tuned, ""), shared.energies(tuned)) if length > 1 else (("-", "-"), "- | -")
        encoder_j = f"{shared.energy_j(starts, 0):.3g}"
        shared.row(encoder, bits, *judged(tuned, "_before"), *after, encoder_j, paid)


def judged(results: list[shared.Result], when: str) -> tuple[str, str]:
    """Accuracy and defence success rate at the end, or "_before" the fine-tuning."""
    rates = [result[f"details{when}"]["defence_success_rate"] or 0.0 for result in results]
    return shared.percent([result[f"accuracy{when}"] for result in results], 1), shared.percent(rates, 1)


if __name__ == "__main__":
    main()
