"""The command line: parse, call the library, print. Everything here can be done from Python as well."""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import click

from hwmodel.errors import HwmodelError
from qtrain.arguments import (
    Share,
    budget_options,
    described,
    experiment_options,
    grid_options,
    number_options,
    option_texts,
    sweep_options,
)
from qtrain.errors import QtrainError


def _one_line(message: Warning | str, *_: Any) -> None:
    click.echo(f"warning: {' '.join(str(message).split())}", err=True)


class Commands(click.Group):
    """Turns every expected error into one line on stderr and exit code 2; Ctrl-C into exit code 130."""

    def invoke(self, ctx: click.Context) -> Any:
        warnings.showwarning = _one_line  # type: ignore[assignment]
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            one_line = " ".join(error.format_message().split())  # what was typed may hold line breaks
            raise click.UsageError(one_line, error.ctx) from None
        except (QtrainError, HwmodelError) as error:
            click.echo(f"error: {' '.join(str(error).split())}", err=True)
            ctx.exit(130 if type(error).__name__ == "Interrupted" else 2)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="qtrain")
def main() -> None:
    """Simulate low-bit training of small CNNs and price it on edge devices."""


@main.command()
@click.argument("file", required=False, metavar="[EXPERIMENT.toml]")
@click.option("--resume", metavar="RUN", help="Continue the run in this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, everything else on stderr.")
@experiment_options
def simulate(file: str | None, resume: str | None, as_json: bool, **given: Any) -> None:
    """Train a CNN in low-bit numbers, filtered and pruned, and price it.

    Without options: digits-cnn on scikit-learn's handwritten digits at 8 bits. Options override the file's keys.
    --model package.module:factory runs your own code; nothing else does.
    """
    from rich.console import Console

    from qtrain import console as show
    from qtrain.simulate import resume_run, simulate_experiment

    console = Console(stderr=as_json)
    with show.progress_display(console) as on_progress:
        if resume is not None:  # an empty name, of a shell variable never set, must not begin another run
            changed = [key for key, value in given.items() if value not in (None, ()) and not key.startswith("run__")]
            if file or changed:
                raise QtrainError("--resume takes the run's own settings; give only --device, --threads and the like")
            result = resume_run(resume, on_progress)
        else:
            result = simulate_experiment(described(file, given), on_progress)
    if as_json:
        click.echo(json.dumps(result))
    else:
        show.show_result(console, result)


@main.command()
@click.argument("paths", nargs=-1, metavar="[GRID.toml | RUN...]")
@click.option("--seeds", type=int, default=None, metavar="N", help="Seeds of each setting: the seed, the next, ...")
@sweep_options
@budget_options
@click.option("--sort", default="accuracy", show_default=True, help="Or energy, time, ram, macs, bitops, setting.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write the rows as CSV.")
@click.option("--parquet", metavar="FILE", help="Write the rows as Parquet (extra: parquet).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, everything else on stderr.")
@grid_options
def compare(
    paths: tuple[str, ...], seeds: int | None, out: str, jobs: int, engine: str, address: str, sort: str,
    csv_file: str | None, parquet: str | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Compare settings: every combination of the values given, by commas, for simulate's options.

    Finished runs beneath --out are reused, so that the same command continues a stopped comparison. With folders of
    runs nothing is computed: they are compared as they are. GRID.toml is an experiment with a table [grid] of lists.
    Exit code 1 if a trial failed.
    """
    from rich.console import Console

    from qtrain.compare import comparison
    from qtrain.report import Budget, export, table
    from qtrain.report.progress import sweep_display

    console = Console(stderr=as_json)
    budget = Budget(**{key: given.pop(key) for key in Budget.names()})
    with sweep_display(console) as on_change:
        found = comparison(
            paths, option_texts(given), seeds, out=out, budget=budget, n_workers=jobs, engine=engine, address=address,
            on_change=on_change,
        )  # fmt: skip
    rows = table.sorted_rows(found.rows, sort)
    if csv_file:
        export.write_csv(rows, csv_file)
    if parquet:
        export.write_parquet(rows, parquet)
    if as_json:
        from qtrain.files import to_json

        click.echo(to_json(found.to_json()), nl=False)
    else:
        table.show(console, rows, found.answers, found.sweep, found.unfinished)
    sys.exit(1 if found.sweep.failed else 0)


@main.command()
@click.argument("file", required=False, metavar="[GRID.toml]")
@click.option("--trials", default=40, show_default=True, metavar="N", help="Settings to try.")
@click.option("--max-lost-points", type=float, metavar="X", help="Limit: accuracy lost to dense float32, in points.")
@sweep_options
@click.option("-o", "--output", default="recommended.toml", show_default=True, help="The recommended experiment.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, everything else on stderr.")
@budget_options
@grid_options
def search(
    file: str | None, trials: int, max_lost_points: float | None, out: str, jobs: int, engine: str, address: str,
    output: str, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Search for the best setting within hard limits on the first device (extra: search).

    Options with several values by commas are what is varied; without, bits of each role, filter rate and keep ratio
    are too, unless given. Exit code 1 if the limits cannot be met: then the nearest miss is the answer.
    """
    from pathlib import Path

    from rich.console import Console

    from qtrain.console import say
    from qtrain.files import to_json, write_atomic
    from qtrain.report import Budget
    from qtrain.report.progress import sweep_display
    from qtrain.search import Space
    from qtrain.search import search as find
    from qtrain.sweep import Grid, engines_apart, read_grid

    console = Console(stderr=as_json)
    budget = Budget(**{key: given.pop(key) for key in Budget.names()})
    engine, texts = engines_apart(engine, option_texts(given))
    space = Space.of((read_grid(file) if file else Grid()).with_texts(texts, 1), texts)
    with sweep_display(console) as on_change:
        found = find(
            space, budget, n_trials=trials, max_lost_points=max_lost_points, out=out, n_workers=jobs,
            engine=engine, address=address, on_change=on_change,
        )  # fmt: skip
    write_atomic(Path(output), found.to_toml().encode())
    if as_json:
        click.echo(to_json(found.to_json()), nl=False)
    else:
        for line in [*found.reasons, f"written to {output}: qtrain simulate {output}"]:
            say(console, line)
    sys.exit(0 if found.answer.met else 1)


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="RUN...")
@click.option("-o", "--output", default="report.html", show_default=True, help="The HTML file.")
@click.option("--device", "names", multiple=True, help="Price on this device; default: those of the runs.")
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
@click.option("--images", metavar="DIR", help="Also write each chart as a file into this folder (needs Chromium).")
@click.option("--image-format", type=click.Choice(["png", "svg"]), default="png", show_default=True)
def report(
    paths: tuple[str, ...], output: str, names: tuple[str, ...], open_it: bool, images: str | None, image_format: str
) -> None:
    """Write a report of finished runs: one HTML file that needs no network (extra: report)."""
    from qtrain.report import images as files
    from qtrain.report import page, read_runs

    runs, unfinished = read_runs(paths, names)
    page.write(runs, output)
    if images:
        click.echo(f"{images}: {len(files.write(runs, images, image_format))} images")
    for path in unfinished:
        click.echo(f"left out, not finished: {path}", err=True)
    click.echo(f"{output}: {len(runs)} run{'s' if len(runs) != 1 else ''}")
    if open_it:
        click.launch(output)


@main.command()
@click.option("--model", required=True, help="Shipped network, or package.module:factory of your own (runs its code).")
@click.option("--device", "names", multiple=True, default=("stm32l4r5",), show_default=True, help="May be repeated.")
@click.option("--bits", type=int, default=8, show_default=True, help="2 to 16, or 32 for float32.")
@click.option("--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Instances per step.")
@click.option("--inference", is_flag=True, help="One inference with BatchNorm folded, instead of a training step.")
@click.option("--filter-rate", type=Share(), default=1.0, help="Share of the instances kept.")
@click.option("--uncertain-rate", type=Share(), default=0.0, help="Share forwarded for their loss.")
@click.option("--prune-keep", type=Share(min_open=True), default=1.0, help="Error channels kept.")
@click.option(
    "--momentum",
    type=Share(),
    default=0.9,
    is_flag=False,
    flag_value=0.9,
    help="Above 0 a momentum is kept for every parameter.",
)
@click.option(
    "--train", "layers", default="all", help="Layers trained: globs by commas; GLOB:SHARE for the first channels."
)
@click.option("--train-bias", "bias_only", default="", help="Layers of which only biases are trained.")
@click.option("--fused-update", is_flag=True, help="Update each layer inside the backward pass.")
@click.option("--kernels", default=None, help="Kernel library; default: the device's own.")
@click.option("--clock-mhz", type=float, default=None, help="Default: the device's own.")
@click.option("--input-shape", default=None, metavar="C,H,W", help="For your own models.")
@click.option("--norm", default="batch", show_default=True, metavar="batch|range|group|frozen|folded")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def estimate(as_json: bool, **options: Any) -> None:
    """Price one training step, or one inference, from shapes alone: nothing is trained.

    Shipped models need no torch; your own model is traced on torch's meta device.
    """
    from qtrain.estimate import estimate_bills

    _print_bills({"model": options["model"], "bills": estimate_bills(**options)}, as_json)


@main.command()
@click.argument("run")
@click.option("--device", "names", multiple=True, required=True, help="May be repeated.")
@click.option("--kernels", default=None, help="Kernel library; default: the device's own.")
@click.option("--clock-mhz", type=float, default=None, help="Default: the device's own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def price(run: str, names: tuple[str, ...], kernels: str | None, clock_mhz: float | None, as_json: bool) -> None:
    """Price a finished run on other devices."""
    from qtrain.store import Run
    from qtrain.summary import RunRecord

    found = Run.open(run)
    record = RunRecord.from_json(found.trace(), str(found.path / "trace.json"))
    _print_bills({"run": run, "bills": record.bills(names, kernels, clock_mhz)}, as_json)


def _print_bills(data: dict[str, Any], as_json: bool) -> None:
    if as_json:
        from qtrain.files import to_json

        click.echo(to_json(data))
    else:
        from rich.console import Console

        from qtrain.console import show_bills

        show_bills(Console(), data["bills"])


@main.command()
@click.argument("file", required=False, metavar="[EXPERIMENT.toml]")
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Training steps compared.")
@click.option("--batch-size", "batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@number_options
def verify(file: str | None, steps: int, batch: int, as_json: bool, **given: Any) -> None:
    """Compare every stored tensor of training steps with an integer-only engine, bit for bit.

    Of the file, and of simulate's options, those of model, normalization, data and numbers count. Exit code 1 if one
    element differs, or if the numbers are not verifiable.
    """
    from rich.console import Console

    from qtrain import engine as engines
    from qtrain.console import show_verification
    from qtrain.verification import verify as compared

    experiment = described(file, given)
    with engines.using(experiment.run.engine):
        found = compared(experiment, steps, batch)
    if as_json:
        click.echo(json.dumps(found))
    else:
        show_verification(Console(), found)
    sys.exit(1 if found["mismatches"] or not found["verifiable"] else 0)


@main.command()
@click.argument("run")
@click.option("--format", "fmt", type=click.Choice(["qcdq", "qonnx"]), default="qcdq", show_default=True)
@click.option("-o", "--output", "path", default=None, help="Default: RUN/model.FORMAT.onnx.")
@click.option(
    "--compare", "n_instances", type=click.IntRange(1), default=None, metavar="N",
    help="Run the file in onnxruntime on N test instances and say how closely it agrees.",
)  # fmt: skip
def export(run: str, fmt: str, path: str | None, n_instances: int | None) -> None:
    """Write a finished run's network as ONNX through Brevitas."""
    from qtrain.export import compare as agreement
    from qtrain.export import export as write

    written = write(run, fmt, path)
    click.echo(f"wrote {written}")
    if n_instances:
        seen = agreement(run, written, n_instances)
        click.echo(
            f"onnxruntime: {seen.n_same_predictions} of {seen.n_instances} predictions and {seen.n_same_logits} rows "
            "of logits are the simulator's"
        )


@main.command("recipes")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def recipes_command(as_json: bool) -> None:
    """List the ways to learn: what each needs, its paper, and the work of a step against supervised learning."""
    import dataclasses

    from qtrain.recipes.catalog import RECIPES

    if as_json:
        click.echo(json.dumps([dataclasses.asdict(info) for info in RECIPES]))
    else:
        from rich.console import Console

        from qtrain.console import show_recipes

        show_recipes(Console(), RECIPES)


@main.command("devices")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def devices_command(name: str | None, as_json: bool) -> None:
    """List the devices, or show one with the value, unit, source and basis of each constant.

    `devices validate` compares the model with every calibration measurement.
    """
    from rich.console import Console

    from hwmodel import devices
    from qtrain.console import show_device, show_devices

    if name == "validate":
        from hwmodel.__main__ import main as validate

        sys.exit(validate(["validate", *(["--json"] if as_json else [])]))
    if as_json:
        import dataclasses

        found = [devices.load(name)] if name else [devices.load(n) for n in devices.names()]
        click.echo(json.dumps([dataclasses.asdict(device) for device in found]))
    elif name:
        show_device(Console(), devices.load(name))
    else:
        show_devices(Console(), [devices.load(n) for n in devices.names()])


if __name__ == "__main__":
    main()
