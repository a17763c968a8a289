"""Accuracy against bits: fixed point, block floating point and minifloats against float32, LeNet on MNIST.

    python benchmarks/numerics/bits.py --data-dir DATA --out runs/bits

Weights, activations, errors and weight gradients share a format and a width; masters and momentum are 16-bit fixed
point, logits and what a normalization reads 8 bits, as `--bits` and `--format` set them. The learning rate is chosen
once, for float32, on a tenth of the training set. Every run has a folder of its own: stopped and started again, the
command goes on where it was, and it rewrites the table after each run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import click

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.files import write_atomic
from qtrain.simulate import simulate_experiment
from qtrain.store import Run

WIDTHS = {"fixed": (8, 6, 5, 4, 3, 2), "bfp": (8, 6, 5, 4, 3, 2), "minifloat": (8, 6, 5, 4, 3)}
RATES = (0.005, 0.01, 0.02, 0.05)
RATE_STEPS = 300
TITLES = {"float32": "float32", "fixed": "fixed point", "bfp": "block floating point (16)", "minifloat": "minifloat"}
BROKEN_POINTS = 10.0
"""Points of accuracy lost to float32 from which training is called broken."""

Setting = tuple[str, int]
FLOAT32: Setting = ("float32", 32)


def described(
    setting: Setting, seed: int, rate: float, data_dir: str, steps: int, val_split: float = 0.0
) -> Experiment:
    """One run: every instance trained on, no error pruned."""
    fmt, bits = setting
    numbers = {"numbers.bits": bits} if fmt == "float32" else {"numbers.bits": bits, "numbers.format": fmt}
    return Experiment(model="lenet", seed=seed).with_options({
        "data.name": "mnist", "data.dir": data_dir, "data.val_split": val_split, "filter.kind": "none",
        "prune.kind": "none", "train.epochs": 1, "train.steps": steps, "optimizer.lr": rate, "run.threads": 1,
        **numbers,
    })  # fmt: skip


def settings() -> list[Setting]:
    """The rows of the table."""
    return [FLOAT32, *((fmt, bits) for fmt, widths in WIDTHS.items() for bits in widths)]


def results(experiments: list[Experiment], out: Path) -> Iterator[tuple[Experiment, Path]]:
    """Every experiment with the folder of its finished run, one trained after the other; those that fail are said."""
    for trial in experiments:
        folder = out / trial.id
        try:
            simulate_experiment(trial.with_options({"run.out": str(folder)}))
        except QtrainError as error:
            click.echo(f"failed: {folder}: {error}", err=True)
        else:
            yield trial, folder


def accuracy(folder: Path) -> float:
    """Test accuracy of a finished run, in percent."""
    return 100 * float((Run.open(folder).result() or {})["accuracy"])


def worst(folders: list[Path]) -> str:
    """What the numerics report says: each role's least signal-to-noise ratio, and what saturates or flushes most."""
    health = [row for folder in folders for row in Run.open(folder).numbers().get("health", [])]
    if not health:
        return "-"
    places = {"weight": ("weight",), "output": ("output",), "error": ("error",),
              "gradient": ("gradient", "bias_gradient")}  # fmt: skip
    parts = []
    for role, names in places.items():
        rows = [row for row in health if row["role"] in names and row["sqnr_db"] is not None]
        if rows:
            least = min(rows, key=lambda row: row["sqnr_db"])
            parts.append(
                f"{least['layer']} {role} {least['sqnr_db']:.0f} dB, {100 * least['zeroed']:.0f} % flushed, "
                f"{100 * least['saturated']:.1f} % saturated"
            )
    return "; ".join(parts)


def table(found: dict[Setting, list[Path]], header: list[str]) -> str:
    """The Markdown page."""
    scores = {setting: [accuracy(folder) for folder in folders] for setting, folders in found.items() if folders}
    base = statistics.mean(scores[FLOAT32]) if FLOAT32 in scores else None
    lines = [*header, "", "| format | bits | accuracy % | against float32 | seeds | least signal to noise by role |",
             "| --- | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    broken = []
    for (fmt, bits), values in scores.items():
        mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        lost = "" if base is None else f"{mean - base:+.2f}"
        said = worst(found[fmt, bits])
        lines.append(f"| {TITLES[fmt]} | {bits} | {mean:.2f} ± {spread:.2f} | {lost} | {len(values)} | {said} |")
        if base is not None and base - mean > BROKEN_POINTS:
            broken.append(f"{TITLES[fmt]} at {bits} bits")
    lines += ["", f"Training breaks (more than {BROKEN_POINTS:g} points lost): {', '.join(broken) or 'nowhere'}."]
    if ("fixed", 8) in scores and base is not None:
        lost = base - statistics.mean(scores["fixed", 8])
        verdict = "reached" if lost <= 0.2 else "missed"
        lines += ["", f"Fixed point at 8 bits within 0.2 points of float32: {verdict}, {-lost:+.2f} points."]
    return "\n".join(lines) + "\n"


def chosen_rate(out: Path, data_dir: str) -> tuple[float, str]:
    """The learning rate of the best float32 validation accuracy, and all of them in words."""
    trials = [described(FLOAT32, 0, rate, data_dir, RATE_STEPS, val_split=0.1) for rate in RATES]
    scores = {trial.optimizer.lr: accuracy(folder) for trial, folder in results(trials, out)}
    words = ", ".join(f"{rate:g}: {score:.2f}" for rate, score in scores.items())
    return max(scores, key=lambda rate: scores[rate]), words


def rewrite(page: Path, text: str) -> None:
    """Put `text` in the place of the page's table; the sections behind it, written by hand, stay."""
    old = page.read_text() if page.exists() else ""
    _, heading, sections = old.partition("\n## ")
    write_atomic(page, (text + heading + sections).encode())


@click.command()
@click.option("--data-dir", default="data", show_default=True)
@click.option("--out", default="runs/bits", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=300, show_default=True, help="Mini-batches of 64; 938 are an epoch.")
@click.option("--only", multiple=True, help="Rows besides float32, as fixed8; default: all.")
@click.option("--page", default="benchmarks/results/bits.md", show_default=True)
def main(data_dir: str, out: str, seeds: int, steps: int, only: tuple[str, ...], page: str) -> None:
    """Train what is missing and write the table."""
    rate, words = chosen_rate(Path(out), data_dir)
    wanted = [pair for pair in settings() if pair == FLOAT32 or not only or "{}{}".format(*pair) in only]
    pairs = {described(setting, seed, rate, data_dir, steps): setting for seed in range(seeds) for setting in wanted}
    found: dict[Setting, list[Path]] = {setting: [] for setting in wanted}
    for trial, folder in results(list(pairs), Path(out)):
        found[pairs[trial]].append(folder)
        commit = Run.open(folder).environment().get("commit", "")
        rewrite(Path(page), table(found, header(rate, words, steps, str(commit))))


def header(rate: float, words: str, steps: int, commit: str) -> list[str]:
    """What the figures rest on."""
    return [
        "# Accuracy against bits: LeNet on MNIST", "",
        f"`python benchmarks/numerics/bits.py --data-dir DATA --steps {steps}` at commit {commit[:12]}:",
        f"{steps} steps of 64 images ({64 * steps:,} of 60,000), no filter, no pruning, momentum 0.9, weight decay",
        "1e-4, cosine schedule, stochastic rounding of errors, gradients and updates, delayed exponents.",
        f"Learning rate {rate:g}, chosen once for all: float32's accuracy on a tenth of the training set after",
        f"{RATE_STEPS} steps ({words} %).",
        "Mean and standard deviation over seeds of the accuracy on the 10,000 test images; each role's worst point by",
        "the runs' numerics reports.",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
