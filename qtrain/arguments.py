"""Command-line options made from the experiment's own fields, so that an option is described in one place."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click


class Share(click.FloatRange):
    """A number from 0 to 1. NaN, which click finds in every range, is none."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(0, 1, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return found


def experiment_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Every key of an experiment as an option of `command`; unset ones are None."""
    return _options(command, lambda key: True)


def number_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The keys that say what is computed in which numbers, on what data."""
    named = ("model", "init", "seed", "data.name", "data.dir", "train.norm", "run.engine")
    return _options(command, lambda key: key in named or key.startswith("numbers."))


def _options(command: Callable[..., Any], wanted: Callable[[str], bool]) -> Callable[..., Any]:
    from qtrain.experiment import options

    for flag, metavar, text in _SHORTHANDS:
        command = click.option(flag, metavar=metavar, help=text)(command)
    for option in reversed([option for option in options() if wanted(option.key)]):
        name = option.key.replace(".", "__")
        valid = "|".join(filter(None, option.choices)) if option.choices else option.range
        text = f"{option.help}  [{valid}]" if valid else option.help
        if option.type is bool:
            off = f"--no-{option.flag[2:]}"
            command = click.option(f"{option.flag}/{off}", name, default=None, help=text)(command)
        else:
            command = click.option(
                option.flag, name, default=None, multiple=option.per_item, help=text, metavar=_metavar(option)
            )(command)
    return command


_SHORTHANDS = (
    ("--format", "NAME", "Format of weights, activations, errors and gradients: as --weight-format."),
    ("--bits", "N", "Weights, activations, errors and gradients: 2 to 16, or 32."),
)


def grid_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same options for many runs: several values by commas, and each may be given more than once."""
    from qtrain.experiment import options

    for option in reversed([option for option in options() if option.key not in ("run.out", "run.engine")]):
        name, text = option.key.replace(".", "__"), f"As for simulate: {option.help}."
        if option.type is bool:
            off = click.option(f"--no-{option.flag[2:]}", f"{name}__off", is_flag=True, hidden=True)
            command = off(command)
            command = click.option(
                option.flag, name, is_flag=False, flag_value="true", default=None, help=text, metavar="[true,false]"
            )(command)
        else:
            metavar = _metavar(option).removesuffix(",...") + ",..."
            command = click.option(option.flag, name, multiple=True, help=text, metavar=metavar)(command)
    for flag, metavar, _ in _SHORTHANDS:
        name = f"numbers__{flag[2:]}"
        command = click.option(flag, name, multiple=True, metavar=f"{metavar},...", help="As for simulate.")(command)
    return command


def budget_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Hard limits on a setting."""
    for name, text in (
        ("--min-accuracy", "Limit: mean accuracy, 0 to 1."),
        ("--max-ram-bytes", "Limit: peak RAM."),
        ("--max-step-energy-j", "Limit: mean energy of a mini-batch of the stream, learned from or not."),
        ("--max-update-energy-j", "Limit: energy of the run over its updates of the weights."),
        ("--max-energy-j", "Limit: energy of a run."),
    ):
        command = click.option(name, type=float, metavar="X", help=text)(command)
    return command


def sweep_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where many runs lie, and where they are carried out."""
    where = "Where runs are carried out; or what simulate's --engine takes."
    for option in (
        click.option("--address", default="", help="Address of a running ray cluster; default: one on this machine."),
        click.option("--engine", default="local", show_default=True, metavar="local|ray|...", help=where),
        click.option("--jobs", default=0, metavar="N", help="Runs at a time; default: one a core."),
        click.option("--out", default="runs", show_default=True, help="Folder beneath which the runs lie."),
    ):
        command = option(command)
    return command


def option_texts(given: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Options of `grid_options` that were given: key -> texts, in the order of the file."""
    texts: dict[str, tuple[str, ...]] = {}
    for name, value in given.items():
        key = name.removesuffix("__off").replace("__", ".")
        if name.endswith("__off"):
            texts |= {key: ("false",)} if value else {}
        elif value:
            texts[key] = (value,) if isinstance(value, str) else value
    return texts


def _metavar(option: Any) -> str:
    kinds = {int: "N", float: "X", str: "TEXT"}
    return kinds[option.type] + (",..." if option.is_list and not option.per_item else "")


def described(file: str | None, given: dict[str, Any]) -> Any:
    """The experiment of a TOML file (or the defaults) changed by the options given on the command line."""
    from qtrain.experiment import Experiment, load, options, whole_or_text

    experiment = load(file) if file else Experiment()
    changes: dict[str, Any] = {}
    if given.get("bits") is not None:
        changes["numbers.bits"] = whole_or_text(given["bits"])
    if given.get("format") is not None:
        changes["numbers.format"] = given["format"]
    for option in options():
        value = given.get(option.key.replace(".", "__"))
        if value in (None, ()):
            continue
        if option.type is bool:
            changes[option.key] = value
        elif option.per_item:
            changes[option.key] = tuple(part for item in value for part in item.split(","))
        else:
            changes[option.key] = option.parse(value)
    return experiment.with_options(changes)
