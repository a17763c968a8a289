"""The same run in every way it may be carried out: losses, weights and trace must not differ by a bit.

    python benchmarks/same_bits.py [--model resnet8] [--steps 6] [--batch-size 8] [--bits 8] [--seed 0]

Varied, one at a time: 1 and 2 threads; NCHW and channels_last maps; pruned channels gathered into a smaller convolution
or left in the whole one with zero weights; PyTorch's operations and the compiled kernels; stopped after a step drawn by
the seed and resumed. Prints a line of hashes each; exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from qtrain import engine
from qtrain.experiment import Experiment
from qtrain.layers import QuantizedNetwork
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.training import loop

Hashes = dict[str, str]


def patches(layout: torch.memory_format | None = None, gathered: bool | None = None) -> ExitStack:
    """Holds, until closed, the memory format of all maps and whether pruned channels are gathered."""
    stack = ExitStack()
    if layout is not None:
        held = property(lambda net: layout, lambda net, value: None)
        stack.enter_context(mock.patch.object(QuantizedNetwork, "memory_format", held))
    if gathered is not None:
        stack.enter_context(mock.patch("qtrain.layers.mac.gathers", return_value=gathered))
    return stack


def hashes(folder: Path) -> Hashes:
    """Of losses, final weights and trace of a finished run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = json.dumps([row.get("loss") for row in rows]).encode()
    parts = {"losses": losses, "weights": (folder / "weights.safetensors").read_bytes(),
             "trace": (folder / "trace.json").read_bytes()}  # fmt: skip
    return {name: hashlib.sha256(data).hexdigest()[:16] for name, data in parts.items()}


def carried_out(experiment: Experiment, folder: Path, **how: Any) -> Hashes:
    """Run the experiment in `folder`; `how` are the arguments of `patches`."""
    threads = torch.get_num_threads()
    try:
        with patches(**how):
            simulate_experiment(experiment.with_options({"run.out": str(folder)}))
    finally:
        torch.set_num_threads(threads)
    return hashes(folder)


class Stopped(Exception):
    """Thrown into a run."""


def interrupted(experiment: Experiment, folder: Path, after: int) -> Hashes:
    """Run with a checkpoint each step, throw it out of step `after` (from 1), and resume it."""
    step = loop.train_step

    def failing(job: Any, batch: Any, rate: float) -> Any:
        if batch.step == after:
            raise Stopped
        return step(job, batch, rate)

    settings = {"run.out": str(folder), "run.checkpoint_every": 1}
    try:
        with mock.patch.object(loop, "train_step", failing):
            simulate_experiment(experiment.with_options(settings))
    except Stopped:
        resume_run(str(folder))
    return hashes(folder)


def variants(experiment: Experiment, root: Path, seed: int) -> dict[str, Hashes]:
    """Hashes of every way, the plain one first."""
    found = {"1 thread": carried_out(experiment, root / "plain")}
    two = experiment.with_options({"run.threads": 2})
    found["2 threads"] = carried_out(two, root / "threads")
    found["NCHW"] = carried_out(experiment, root / "nchw", layout=torch.contiguous_format)
    found["channels_last"] = carried_out(experiment, root / "last", layout=torch.channels_last)
    found["gathered channels"] = carried_out(experiment, root / "gathered", gathered=True)
    found["masked channels"] = carried_out(experiment, root / "masked", gathered=False)
    if engine.compiler() is not None:
        compiled = experiment.with_options({"run.engine": "compiled"})
        found["compiled kernels"] = carried_out(compiled, root / "compiled")
    after = random.Random(seed).randrange(1, experiment.train.steps)
    found[f"resumed after step {after}"] = interrupted(experiment, root / "resumed", after)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet8")
    for name, default in (("steps", 6), ("batch-size", 8), ("bits", 8), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    experiment = described(given.model, given.steps, given.batch_size, given.bits, given.seed)
    with tempfile.TemporaryDirectory() as root:
        found = variants(experiment, Path(root), given.seed)
    for name, own in found.items():
        print(f"{name:24}", *(f"{part} {value}" for part, value in own.items()))
    return len({tuple(own.values()) for own in found.values()}) != 1


def described(model: str, steps: int, batch_size: int, bits: int, seed: int) -> Experiment:
    """A run with half of the channels pruned and a random half of the instances dropped, by PyTorch's operations."""
    return Experiment().with_options({
        "model": model, "seed": seed, "numbers.bits": bits, "train.steps": steps, "train.batch_size": batch_size,
        "filter.kind": "random", "prune.kind": "channel", "prune.keep": 0.5, "run.threads": 1, "run.engine": "torch",
    })  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
