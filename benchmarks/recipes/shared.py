"""What the scripts of this folder share: their options, one run of a table, and how the figures of its seeds are shown.

Every run has a folder of its own: stopped and started again, the same command rereads what is finished. Other settings
want another `--out`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment

Result = dict[str, Any]
DEVICES = ("stm32l4r5", "eyeriss")
PLAIN = {"filter.kind": "none", "prune.kind": "none", "run.threads": 1, "run.devices": DEVICES}
ENERGIES = "MCU J | accelerator J"


def options(out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The click options of every table: where the data are, where runs go (by default `out`), how many seeds."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--seeds", default=3, show_default=True, help="Seeds 0, 1, ... of each row."),
            click.option("--out", default=out, show_default=True),
            click.option("--data-dir", default="data", show_default=True),
        ):
            command = option(command)
        return command

    return add


def bits_option(command: Callable[..., None]) -> Callable[..., None]:
    """The click option of the widths a table has rows for."""
    return click.option("--bits", "widths", type=int, multiple=True, default=(32, 8), show_default=True)(command)


def run(out: str, data_dir: str, name: str, seed: int, settings: dict[str, Any]) -> Result:
    """The result of the run `name` of `seed`, trained in `out` if it was not before: LeNet-5 on MNIST, without filter
    and pruning, unless `settings` say otherwise."""
    base = {"model": "lenet5", "seed": seed, "data.name": "mnist", "data.dir": data_dir}
    place = {"run.out": str(Path(out) / f"{name}-{seed}")}
    return simulate_experiment(Experiment().with_options({**base, **PLAIN, **place, **settings}))


def percent(shares: Sequence[float], digits: int = 2) -> str:
    """Mean of shares and, in brackets, their range."""
    mean = f"{100 * sum(shares) / len(shares):.{digits}f}"
    if len(shares) == 1:
        return mean
    return f"{mean} ({100 * min(shares):.{digits}f} to {100 * max(shares):.{digits}f})"


def energy_j(results: Sequence[Result], device: int) -> float:
    """Mean energy of the runs on one of DEVICES."""
    return float(sum(result["bills"][device]["energy_j"] for result in results) / len(results))


def energies(results: Sequence[Result]) -> str:
    """Mean energies of the runs on DEVICES, as cells of a table."""
    return " | ".join(f"{energy_j(results, device):.3g}" for device in range(len(DEVICES)))


def header(*names: str) -> None:
    """Print the head of a Markdown table; a name may hold several columns."""
    columns = " | ".join(names)
    click.echo(f"| {columns} |\n|{'---|' * (columns.count('|') + 1)}")


def row(*cells: object) -> None:
    """Print a row of it."""
    click.echo("| " + " | ".join(str(cell) for cell in cells) + " |")
