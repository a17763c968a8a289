"""MNIST as a correlated stream without labels: what a small buffer should keep, and what finding that out costs.

    python benchmarks/recipes/correlated.py --data-dir DATA

Accuracy is that of linear classifiers on the frozen features with 20, 200 and 2,000 labels. Scoring is what a run costs
beyond the FIFO one of the same stream, whose steps are the same but for the scores. Prints a Markdown table.
"""

from __future__ import annotations

import itertools

import click
import shared

POLICIES = (("fifo", 1), ("random", 1), ("score", 1), ("score", 5), ("score", 20))
"""Policy, and steps after which a kept instance is scored again; FIFO first: the others' scoring is told from it."""


def share_more(results: list[shared.Result], plain: list[shared.Result]) -> str:
    """Of the MACs and of the energies on both devices: the percentage that `plain` does not have."""
    own = [sum(r["macs"]["total"] for r in results), *(shared.energy_j(results, i) for i in range(len(shared.DEVICES)))]
    less = [sum(r["macs"]["total"] for r in plain), *(shared.energy_j(plain, i) for i in range(len(shared.DEVICES)))]
    return ", ".join(f"{100 * (1 - b / a):.1f}" for a, b in zip(own, less, strict=True))


@click.command()
@shared.options("runs/correlated")
@shared.bits_option
@click.option("--run-length", "lengths", type=int, multiple=True, default=(1, 50, 500), show_default=True)
@click.option("--buffer", default=64, show_default=True, help="Instances in the buffer.")
@click.option("--steps", default=300, show_default=True)
def main(
    data_dir: str, out: str, seeds: int, widths: tuple[int, ...], lengths: tuple[int, ...], buffer: int, steps: int
) -> None:
    """Train what is missing and print the table."""
    shared.header(
        "run length", "bits", "policy", "scored again after", "accuracy % at 20, 200 labels", "at 2,000",
        "scoring % of MACs, MCU J, accelerator J", shared.ENERGIES,
    )  # fmt: skip
    for bits, length in itertools.product(widths, lengths):
        plain: list[shared.Result] = []
        for policy, interval in POLICIES:
            settings = {
                "recipe": "contrast", "data.flip": False, "stream.kind": "correlated", "stream.run_length": length,
                "contrast.policy": policy, "contrast.interval": interval, "contrast.buffer": buffer,
                "numbers.bits": bits, "train.steps": steps,
            }  # fmt: skip
            name = f"{policy}-{interval}-{length}-{buffer}-{bits}"
            results = [shared.run(out, data_dir, name, seed, settings) for seed in range(seeds)]
            plain = plain or results
            tables = [list(result["details"]["linear_accuracy_by_labels"].values()) for result in results]
            few = ", ".join(f"{100 * sum(table[i] for table in tables) / seeds:.1f}" for i in range(2))
            accuracy = shared.percent([table[2] for table in tables], 1)
            again = interval if policy == "score" else "-"
            cost = share_more(results, plain) if policy == "score" else "-"
            shared.row(length, bits, policy, again, few, accuracy, cost, shared.energies(results))


if __name__ == "__main__":
    main()
