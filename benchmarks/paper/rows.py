"""The rows: what each changes about its table's dense float32 training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qtrain.experiment import Experiment

Options = dict[str, Any]

DENSE: Options = {"filter.kind": "none", "prune.kind": "none", "numbers.bits": 32, "run.threads": 1}
EIF: Options = {"filter.kind": "instance"}
EMP: Options = {"prune.kind": "channel", "prune.keep": 0.6}
Q8: Options = {"numbers.bits": 8}
OWN: Options = {"numbers.error_scale": "dynamic"}
"""Errors by their own exponents: of the few kept instances the last step's tell too little."""
PUBLISHED: Options = {"optimizer.lr": 0.01, "optimizer.schedule": "constant", "filter.mean_over": "kept"}
"""LeNet's rate and reduction in the paper; the table's own were chosen (benchmarks/results/paper_settings.md)."""
FAITHFUL: Options = {**EIF, **PUBLISHED, "filter.network": "slim-lenet", "filter.steer": "true-high"}
"""The paper's own rule: kept where P(high) >= 1/2, T_l by equations 2 and 3, uncertainty sampling; the filter's rate
and the guard against a dead filter are ours."""
PRINTED: Options = {
    **FAITHFUL, "filter.lr": 0.1, "filter.schedule": "step", "filter.milestones": (940,), "filter.audit": 0.0,
}  # fmt: skip
"""The same with the paper's rate, 0.1 and from step 940 on 0.05, and without a guard."""


def baseline(kind: str, keep: float) -> Options:
    return {"filter.kind": kind, "filter.keep": keep}


@dataclass(frozen=True)
class Table:
    """One table: what all its rows share, its rows, the row that differences are taken from, and its first device."""

    name: str
    title: str
    common: Options
    rows: Mapping[str, Options]
    reference: str
    epochs: int
    paper_epochs: int
    steps_per_epoch: int = 0
    curve: tuple[str, ...] = ()
    """One method at several rates, and what is compared with it at equal cost."""
    beside: tuple[str, ...] = ()

    def options(self, row: str, epochs: int) -> Options:
        """Everything that makes `row` at a budget of `epochs`; schedule "step" has its milestones at a half and three
        quarters of it (the paper's 32k and 48k of 64k)."""
        n_steps = epochs * self.steps_per_epoch
        milestones = {"optimizer.milestones": (n_steps // 2, 3 * n_steps // 4)} if n_steps else {}
        return {**DENSE, **self.common, **milestones, "train.epochs": epochs, **self.rows[row]}

    def experiment(self, row: str, seed: int, epochs: int) -> Experiment:
        """The run of one seed of `row`."""
        return Experiment(seed=seed).with_options(self.options(row, epochs))


LENET = Table(
    "lenet",
    "LeNet on MNIST",
    {
        "model": "lenet", "data.name": "mnist", "optimizer.lr": 0.1, "optimizer.momentum": 0.5,
        "optimizer.weight_decay": 0.0, "optimizer.schedule": "cosine", "train.batch_size": 64, "filter.rate": 0.2,
        "filter.network": "slimmer-lenet", "filter.mean_over": "streamed", "run.devices": ("stm32l4r5", "eyeriss"),
    },
    {
        "sgd": PUBLISHED,
        "sgd-tuned": {},
        "eif": EIF,
        "eif+emp": EIF | EMP,
        "eif+emp+8bit": EIF | EMP | Q8 | OWN,
        "eif+emp+8bit-delayed": EIF | EMP | Q8,
        "eif+emp-rate-0.15": EIF | EMP | {"filter.rate": 0.15},
        "eif-published": EIF | PUBLISHED,
        "emp": EMP,
        "ohem": baseline("ohem", 0.3),
        "smb": baseline("smb", 0.25),
        "smd": baseline("smd", 0.25),
        "random": baseline("random", 0.25),
        "eif-rate-0.1": EIF | {"filter.rate": 0.1},
        "eif-rate-0.17": EIF | {"filter.rate": 0.17},
        "eif-rate-0.4": EIF | {"filter.rate": 0.4},
        "eif-rate-0.6": EIF | {"filter.rate": 0.6},
        "smb-0.5": baseline("smb", 0.5),
        "smd-0.5": baseline("smd", 0.5),
        "paper-printed": PRINTED,
        "paper-rule": FAITHFUL,
        "static-threshold": FAITHFUL | {"filter.adaptive": False, "filter.threshold": 1.0},
        "unweighted": FAITHFUL | {"filter.weighted": False},
        "no-uncertainty": FAITHFUL | {"filter.uncertainty": False},
        "gradient-0.9": {"prune.kind": "stochastic", "prune.rate": 0.9},
    },
    "sgd-tuned",
    20,
    20,
    curve=("eif-rate-0.1", "eif-rate-0.17", "eif", "eif-rate-0.4", "eif-rate-0.6"),
    beside=("smb", "smb-0.5", "smd", "smd-0.5", "random"),
)  # fmt: skip

CIFAR = Table(
    "cifar",
    "ResNet-20 on CIFAR-10",
    {
        "model": "resnet20", "data.name": "cifar10", "data.augment": True, "optimizer.lr": 0.1,
        "optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-4, "optimizer.schedule": "cosine",
        "train.batch_size": 128, "filter.network": "resnet8-a-slimmer", "run.devices": ("gap9", "eyeriss"),
    },
    {
        "sgd": {},
        "eif": EIF,
        "emp-0.6": EMP,
        "emp-0.3": EMP | {"prune.keep": 0.3},
        "eif+emp": EIF | EMP,
        "eif+emp+8bit": EIF | EMP | Q8 | OWN,
        "ohem": baseline("ohem", 0.3),
        "smd": baseline("smd", 0.35),
        "gradient-0.9": {"prune.kind": "stochastic", "prune.rate": 0.9},
        "depth-0.5": {"train.survival": 0.5},
    },
    "sgd",
    5,
    164,
)  # fmt: skip

RESNET110 = Table(
    "resnet110",
    "ResNet-110 on CIFAR-10",
    CIFAR.common | {"model": "resnet110", "filter.network": "resnet8-a", "optimizer.schedule": "step"},
    {"sgd": {}, "eif+emp": EIF | EMP, "eif+emp+8bit": EIF | EMP | Q8},
    "sgd",
    16,
    164,
    steps_per_epoch=391,
)

MCU = Table(
    "mcu",
    "LeNet on MNIST at batch 1, on an MSP432",
    LENET.common | PUBLISHED | {"train.batch_size": 1, "run.devices": ("msp432p401r",)},
    {"sgd": {}, "eif+emp": EIF | EMP, "eif+emp+8bit": EIF | EMP | Q8 | OWN},
    "sgd",
    1,
    1,
)

TABLES = {table.name: table for table in (LENET, CIFAR, RESNET110, MCU)}
