"""What benchmarks/fuzz.py feeds: for every kind of input a valid example to spoil, and who reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import fuzz_data
from fuzz_commands import command, prepare_commands
from fuzz_mutations import NUMBERS, dumped, spoiled_bytes, spoiled_text, spoiled_value, toml

from hwmodel import devices, network, pricing
from hwmodel.errors import HwmodelError
from hwmodel.operations import Widths
from hwmodel.schedule import Schedule, filtered_step
from qtrain.experiment import Experiment
from qtrain.store import Run
from qtrain.summary import RunRecord

PRICED = ("stm32l4r5", "ethos-u55-128", "gap9", "eyeriss", "systolic-14x12", "xpulp-cluster8", "jetson-tx2")
FOLDER = "fuzzed"


@dataclass(frozen=True)
class Target:
    """A kind of input: `run` reads one spoiled input made from the generator; a refusal must contain `named`."""

    name: str
    n_inputs: int
    named: str
    run: Callable[[Random, Path], None]
    prepare: Callable[[Path], object] = lambda folder: None


# -- experiments and devices -------------------------------------------------------------------------------------------


def experiment(rng: Random, folder: Path) -> None:
    from qtrain.experiment import load

    path = folder / "experiment.toml"
    valid = Experiment().with_layer("conv1*", weight_bits=4).with_layer("*", prune_keep=0.5)
    path.write_text(spoiled_text(rng, valid.to_toml(), valid.to_tables()), encoding="utf-8")
    found = load(path)
    assert Experiment.from_toml(found.to_toml()) == found


def grid(rng: Random, folder: Path) -> None:
    from qtrain.sweep import read_grid

    path = folder / "grid.toml"
    axes = {"numbers.bits": [4, 8], "prune.keep": [0.5, 1.0], "filter.kind": ["none", "instance"], "seeds": 2}
    tables = {"model": "digits-cnn", "train": {"steps": 3}, "grid": axes}
    path.write_text(spoiled_text(rng, toml(tables), tables), encoding="utf-8")
    read_grid(path)


def device(rng: Random, folder: Path) -> None:
    import tomllib

    name = rng.choice(devices.names())
    text = (resources.files("hwmodel") / "devices" / f"{name}.toml").read_text()
    tables = tomllib.loads(text)
    if rng.random() < 0.4:  # one constant, the rest left valid: what reaches the prices
        constant = rng.choice([c for c in _leaves(tables) if "value" in c])
        constant["value"] = rng.choice(NUMBERS)
        text = toml(tables)
    else:
        text = spoiled_text(rng, text, tables)
    found = devices.parse(text, name, "device.toml")
    try:
        pricing.price(_record().trace, found, schedule=_record().schedule).to_json()
    except HwmodelError as error:  # pricing knows the device by its name, not its file
        raise HwmodelError(f"device.toml: {error}") from None


def _leaves(table: dict[str, Any]) -> list[dict[str, Any]]:
    below = [leaf for item in table.values() if isinstance(item, dict) for leaf in _leaves(item)]
    return below or [table]


# -- records of runs ---------------------------------------------------------------------------------------------------


@cache
def _record() -> RunRecord:
    net = network.load("digits-cnn")
    main = Schedule(net, Widths.uniform(8), {"conv1": Widths.uniform(4)}, momentum=True, prune_keep=0.5)
    own = Schedule(net, Widths.uniform(8), fused_update=True)
    return RunRecord(filtered_step(main, 8, 4, 2, own).repeated(10), main, own, {8: 10})


def trace(rng: Random, folder: Path) -> None:
    data = spoiled_value(rng, json.loads(json.dumps(_record().to_json())))
    record = RunRecord.from_json(data)
    record.summary()
    try:
        record.bills([rng.choice(PRICED)])
    except HwmodelError as error:
        raise HwmodelError(f"trace.json: {error}") from None


def run_folder(rng: Random, folder: Path) -> None:
    path = folder / FOLDER
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(folder / "run", path)
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name != "lock")
    file = rng.choice(files)
    if rng.random() < 0.1:
        file.unlink()
        if rng.random() < 0.5:
            file.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", ".", file.name)))
    elif file.suffix == ".json" and rng.random() < 0.6:
        file.write_text(dumped(spoiled_value(rng, json.loads(file.read_text()))))
    else:
        file.write_bytes(spoiled_bytes(rng, file.read_bytes(), 4096))
    if rng.random() < 0.8:
        (path / "SHA256SUMS").unlink(missing_ok=True)
    run = Run.open(path)
    run.environment(), run.result(), run.metrics(), run.numbers(), run.weights()
    RunRecord.from_json(run.trace(), str(path / "trace.json"))


def prepare_run(folder: Path) -> None:
    import numpy as np

    with Run.create(folder / "run", Experiment()) as run:
        run.append_metrics({"step": 1, "loss": 2.5, "accuracy": None})
        run.save_checkpoint(1, {"w": np.arange(12.0).reshape(3, 4), "b": np.zeros(0, np.int8)}, {"seen": 3, "x": [1.5]})
        run.save_checkpoint(2, {"w": np.arange(12.0).reshape(3, 4), "b": np.zeros(0, np.int8)}, {"seen": 6, "x": [1.5]})
        run.save_weights({"w": np.ones((3, 4), np.float32)})
        run.save_numbers({"input_shape": [1, 8, 8]})
        run.save_trace(_record().to_json())
        run.finish(
            {"accuracy": 0.5, "accuracy_before": None, "loss": 1.0, "seed": 0, "n_steps": 10, "wall_time_s": 1.0,
             "recipe": "supervised", "details": {}, "model": "digits-cnn", "data": "digits", "run": str(folder / "run"),
             "resumed_from_step": None, "instances": {"seen": 80, "kept": 40, "uncertain": 20}, "warnings": [],
             **_record().summary(), "bills": _record().bills(["stm32l4r5"])}
        )  # fmt: skip


def prepare_command(folder: Path) -> None:
    prepare_run(folder)
    prepare_commands(folder)


def checkpoint(rng: Random, folder: Path) -> None:
    path = folder / FOLDER
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(folder / "run", path)
    files = sorted((path / "checkpoint").iterdir())
    for file in rng.sample(files, rng.choice((1, 1, 2, 4))):
        if file.suffix == ".json" and rng.random() < 0.5:
            file.write_text(_resealed(spoiled_value(rng, json.loads(file.read_text()))))
        else:
            file.write_bytes(spoiled_bytes(rng, file.read_bytes(), 200))
    found = Run.open(path).load_checkpoint()
    assert found is not None
    assert found[0] in (1, 2)


def _resealed(record: Any) -> str:
    """A checkpoint's JSON whose own checksum is right again: what a hostile hand would write."""
    from qtrain.store.checkpoint import _body_sha256

    body = record.get("body") if isinstance(record, dict) else None
    try:
        return dumped(record | {"sha256": _body_sha256(body)} if isinstance(body, dict) else record)
    except ValueError:  # a whole number too long to be written by ordinary means
        return dumped(record)


TARGETS = (
    Target("experiment.toml", 6000, "experiment.toml", experiment),
    Target("grid.toml", 1500, "grid.toml", grid),
    Target("device.toml", 4000, "device.toml", device),
    Target("trace.json", 5000, "trace.json", trace),
    Target("run folder", 2500, FOLDER, run_folder, prepare_run),
    Target("checkpoint", 2500, FOLDER, checkpoint, prepare_run),
    Target("idx", 3000, "mnist", fuzz_data.idx),
    Target("cifar binary", 2000, "cifar", fuzz_data.cifar),
    Target("cifar pickle", 2000, "cifar", fuzz_data.pickled, fuzz_data.prepare_pickled),
    Target("png, jpeg", 2000, "imagefolder", fuzz_data.image, fuzz_data.prepare_images),
    Target("command line", 2500, "", command, prepare_command),
)
