"""Train the rows of a table, or print the table of what is there.

    python -m benchmarks.paper train lenet eif+emp+8bit --seeds 5 --data-dir DATA
    python -m benchmarks.paper table lenet > benchmarks/results/paper_lenet.md
    python -m benchmarks.paper pairs lenet eif smd random
    python -m benchmarks.paper clock cifar eif+emp --data-dir DATA
    python -m benchmarks.paper density cifar --data-dir DATA
    python -m benchmarks.paper train resnet110 sgd --minutes 9 --data-dir DATA     # again and again until it is done

Every seed of a row is a run in a folder of its own: finished ones are reread, stopped ones continue at their last
checkpoint with the same bits.
"""

from __future__ import annotations

import signal
from pathlib import Path

import click

from benchmarks.paper.render import counted, differences, finished, interval, markdown
from benchmarks.paper.rows import TABLES, Options, Table
from qtrain.simulate import simulate_experiment
from qtrain.training.loop import Interrupted

OUT = "runs/paper"


def folder(out: str, table: Table, epochs: int, *, steps: int = 0, val_split: float = 0.0) -> Path:
    """Where a table's runs lie; cut short or on a validation split they lie elsewhere."""
    apart = [f"{steps}-steps"] * bool(steps) + [f"val-{val_split:g}"] * bool(val_split)
    return Path(out) / "-".join([table.name, str(epochs), *apart])


def known(table: Table, *rows: str) -> None:
    if unknown := [row for row in rows if row not in table.rows]:
        raise click.UsageError(f"{', '.join(unknown)}: the rows of {table.name} are {', '.join(table.rows)}")


@click.group()
def main() -> None:
    """Tables of arXiv 2007.03213."""


@main.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.argument("rows", nargs=-1)
@click.option("--seeds", default=1, show_default=True, help="Seeds 0, 1, ... of each row.")
@click.option("--first-seed", default=0, show_default=True)
@click.option("--epochs", default=0, help="Budget; default: the table's.")
@click.option("--steps", default=0, help="Stop after this many mini-batches: to see that a row runs.")
@click.option("--minutes", default=0.0, help="Stop at a checkpoint after this long; the same command continues.")
@click.option("--gpu", is_flag=True, help="Compute on a CUDA GPU.")
@click.option("--data-dir", default="data", show_default=True)
@click.option("--val-split", default=0.0, help="Share of the training set tested on instead, to choose settings.")
@click.option("--out", default=OUT, show_default=True)
def train(
    table: str, rows: tuple[str, ...], seeds: int, first_seed: int, epochs: int, steps: int, minutes: float,
    gpu: bool, data_dir: str, val_split: float, out: str,
) -> None:  # fmt: skip
    """Train ROWS (all of them without a name), seed by seed, so that rows stay paired if it is stopped."""
    found = TABLES[table]
    budget = epochs or found.epochs
    known(found, *rows)
    if minutes:
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))  # the loop's own way to stop
        signal.alarm(round(60 * minutes))
    for seed in range(first_seed, first_seed + seeds):
        for row in rows or tuple(found.rows):
            path = folder(out, found, budget, steps=steps, val_split=val_split) / f"{row}-{seed}"
            more: Options = {
                "data.dir": data_dir, "data.val_split": val_split, "run.gpu": gpu, "run.out": str(path)
            }  # fmt: skip
            if steps:
                more["train.steps"] = steps
            if minutes:
                more["run.checkpoint_every"] = 100
            try:
                result = simulate_experiment(found.experiment(row, seed, budget).with_options(more))
            except Interrupted as stopped:
                raise SystemExit(f"{row} seed {seed}: {stopped}") from None
            share = 100 * result["saved"]["macs"]
            click.echo(
                f"{row} seed {seed}: {100 * result['accuracy']:.2f} %, {share:.1f} % of MACs saved, "
                f"{result['wall_time_s']:.0f} s"
            )


@main.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.option("--epochs", default=0, help="Budget; default: the table's.")
@click.option("--seeds", default=5, show_default=True, help="Seeds that an empty row's command asks for.")
@click.option("--out", default=OUT, show_default=True)
def table(table: str, epochs: int, seeds: int, out: str) -> None:
    """Print a table of finished runs as Markdown."""
    found = TABLES[table]
    budget = epochs or found.epochs
    click.echo(markdown(found, folder(out, found, budget), budget, seeds))


@main.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.argument("row")
@click.argument("others", nargs=-1, required=True)
@click.option("--epochs", default=0, help="Budget; default: the table's.")
@click.option("--out", default=OUT, show_default=True)
def pairs(table: str, row: str, others: tuple[str, ...], epochs: int, out: str) -> None:
    """Accuracy of ROW minus that of each of OTHERS over the seeds that both have."""
    found = TABLES[table]
    known(found, row, *others)
    budget = epochs or found.epochs
    runs = {name: finished(found, folder(out, found, budget), name, budget) for name in (row, *others)}
    for other in others:
        by_seed = differences(runs[row], runs[other])
        says = f"{interval(by_seed)} points, {counted(len(by_seed))}" if by_seed else "no seed in common"
        click.echo(f"{row} minus {other}: {says}")


@main.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.argument("row")
@click.option("--bits", default=8, show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--warm-up", default=4, show_default=True)
@click.option("--data-dir", default="data", show_default=True)
def clock(table: str, row: str, bits: int, steps: int, warm_up: int, data_dir: str) -> None:
    """Real time of ROW's steps beside the dense ones, interleaved."""
    from benchmarks.paper.clock import ratios, sentence

    click.echo(f"{row}: {sentence(ratios(TABLES[table], row, bits, steps, warm_up, {'data.dir': data_dir}))}")


@main.command()
@click.argument("table", type=click.Choice(list(TABLES)))
@click.option("--rate", "rates", type=float, multiple=True, default=(0.7, 0.8, 0.9, 0.95, 0.99), show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--warm-up", default=40, show_default=True)
@click.option("--data-dir", default="data", show_default=True)
def density(table: str, rates: tuple[float, ...], steps: int, warm_up: int, data_dir: str) -> None:
    """What stochastic pruning leaves of TABLE's real gradients."""
    from benchmarks.paper.density import markdown

    click.echo(markdown(TABLES[table], rates, steps, warm_up, {"data.dir": data_dir}))


if __name__ == "__main__":
    main()
