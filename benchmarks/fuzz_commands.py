"""Random command lines through click's runner: each must do its work, or end with one line and exit code 2."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import click
from click.testing import CliRunner, Result
from fuzz_mutations import NUMBERS, TEXTS

from cli import main
from qtrain.errors import QtrainError

COMMANDS = ("simulate", "simulate", "estimate", "estimate", "price", "devices", "recipes", "compare", "verify",
            "search", "report", "export", "nonsense")  # fmt: skip
WORDS = ("true", "cosine",
         "digits-cnn", "resnet8", "lenet", "no.such:thing", "1,8,8", "3,32,32", "1,1,1", "conv1*", "fc", "8", "0.5",
         "instance", "channel", "stochastic", "dynamic", "adapt", "float32", "eyeriss", "gap9", "niti8", "saturate",
         "int8-affine", "e4m3", "mxfp4", "bfp5", "group", "frozen", "conv1:0.5", "quantile")  # fmt: skip
NO_DATA = ("--data", "mnist", "--data-dir", "no-such-folder")
"""Lets nothing be trained: whatever else a command line of simulate says, its data are missing."""


def command(rng: Random, folder: Path) -> None:
    """Raises AssertionError for an exit that is neither success nor a refusal in one line."""
    os.chdir(folder)
    arguments = _arguments(rng)
    result = CliRunner().invoke(main, arguments)
    if fault := _fault(result):
        raise AssertionError(f"{' '.join(arguments)[:200]!r}: {fault}")
    if result.exit_code:
        raise QtrainError("refused")


def prepare_commands(folder: Path) -> None:
    """Load what the first command line would load, and write a broken file to name on them."""
    # torch takes seconds to load, and more to trace its first network: not the first command's fault
    CliRunner().invoke(main, ["estimate", "--model", "digits-cnn", "--input-shape", "1,8,8"])
    import qtrain.training.loop  # noqa: F401

    (folder / "broken.toml").write_text("seed = [")


def _arguments(rng: Random) -> list[str]:
    name = rng.choice(COMMANDS)
    arguments = [name]
    known = main.commands.get(name)
    options = [p for p in known.params if isinstance(p, click.Option)] if known else []
    for option in rng.sample(options, min(len(options), rng.randrange(6))):
        flag = rng.choice([*option.opts, *option.secondary_opts])
        if flag in ("--address", "--engine", "--open", "--images", "--baseline") and name != "estimate":
            continue
        arguments.append(flag)
        if not option.is_flag or rng.random() < 0.05:
            arguments.append(_value(rng))
    if name == "simulate":
        return (
            [*arguments, *NO_DATA] if rng.random() < 0.8 else [name, "--resume", rng.choice(("run", "", "/dev/null"))]
        )
    if name == "verify":
        return [*arguments, *NO_DATA]
    if name in ("search", "export"):
        return [name, rng.choice(("broken.toml", "nowhere", "..", "/dev/null")), *arguments[1:]]
    if name in ("compare", "report"):
        return [name, rng.choice(("run", "broken.toml", "..", "/proc/self/mem")), *arguments[1:]]
    if name == "estimate" and rng.random() < 0.8:
        arguments += ["--model", "digits-cnn"]
    if name == "price" and rng.random() < 0.8:
        arguments += ["run", "--device", rng.choice(("stm32l4r5", "gap9", *TEXTS[:8]))]
    if rng.random() < 0.2:
        arguments.append(_value(rng))
    return arguments


def _value(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.3:
        number = rng.choice(NUMBERS)
        return str(number) if not isinstance(number, int) or number.bit_length() < 1000 else "9" * 5000
    return rng.choice(TEXTS) if kind < 0.6 else rng.choice(WORDS)


def _fault(result: Result) -> str:
    error = result.exception
    if error is not None and not isinstance(error, SystemExit):
        return f"{type(error).__name__}: {error}"
    if "Traceback" in result.output:
        return "a traceback"
    last = (result.stderr.strip().splitlines() or [""])[-1]
    if result.exit_code == 2 and not last.lower().startswith("error: "):
        return f"refused without a reason: {last[:200]}"
    return "" if result.exit_code in (0, 2) else f"exit code {result.exit_code}: {last[:200]}"
