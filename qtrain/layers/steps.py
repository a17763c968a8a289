"""A traced model as a list of steps: one layer each, with what its kind needs to run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from hwmodel.network import Network
from hwmodel.operations import MAC_KINDS, NORM_KINDS, Layer


@dataclass
class Step:
    """One layer to run: its shape, the module with its parameters, and what else its kind needs."""

    layer: Layer
    module: nn.Module | None = None
    pad: tuple[int, ...] = ()
    padding: tuple[int, int] = (0, 0)
    moves: list[tuple[str, Any]] = field(default_factory=list)  # ("slice", slices) | ("pad", widths)
    calls: list[Any] | None = None  # in a Brevitas model: what computes it, one after the other


def connected(steps: list[Step], network: str) -> tuple[list[Step], Network]:
    """Mark outputs that only a normalization reads, insert forks, append the loss; `network` is the model's name."""
    readers: dict[str, list[Step]] = {}
    for step in steps:
        for name in step.layer.inputs:
            readers.setdefault(name, []).append(step)
    done: list[Step] = []
    for step in steps:
        users = readers.get(step.layer.name, [])
        if step.layer.kind in MAC_KINDS and len(users) == 1 and users[0].layer.kind in NORM_KINDS:
            step.layer = dataclasses.replace(step.layer, normalized=True)
        done.append(step)
        if len(users) > 1:
            done.append(Step(_fork(step.layer)))
            for user in users:
                inputs = tuple(f"{n}.fork" if n == step.layer.name else n for n in user.layer.inputs)
                user.layer = dataclasses.replace(user.layer, inputs=inputs)
    last = done[-1].layer
    out = (last.out_channels, last.out_height, last.out_width)
    done.append(Step(Layer("loss", "loss", (last.name,), *out, *out)))
    return done, Network(network, tuple(step.layer for step in done))


def _fork(layer: Layer) -> Layer:
    shape = (layer.out_channels, layer.out_height, layer.out_width)
    return Layer(f"{layer.name}.fork", "fork", (layer.name,), *shape, *shape)
