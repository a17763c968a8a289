"""Which normalization a network uses: shapes with every batch normalization exchanged, or folded away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from hwmodel.errors import HwmodelError, unknown
from hwmodel.operations import Layer

NORMS = ("batch", "range", "group", "frozen", "folded")
"""batch: by the batch's variance, as the model has it; frozen: by statistics that no longer change; folded: these,
multiplied into the convolution before, or frozen where there is none."""
GROUP_CHANNELS = 16
"""Channels that share statistics in group normalization: the best of Wu & He 2018, table 3."""
_KINDS = {"range": "rangenorm", "group": "groupnorm", "frozen": "frozennorm"}
_RUNNING = ("batchnorm", "rangenorm", "frozennorm")
"""Normalizations that are one multiplication and addition a channel at inference."""


def n_groups(channels: int) -> int:
    """Groups of about GROUP_CHANNELS channels that divide `channels`."""
    most = max(1, channels // GROUP_CHANNELS)
    return max(n for n in range(1, most + 1) if channels % n == 0)


def exchanged(layers: Iterable[Layer], choose: Callable[[str], str]) -> tuple[Layer, ...]:
    """`layers` with each batch normalization become what `choose` says of its name, one of NORMS. Raises HwmodelError
    for another word."""
    done: list[Layer] = []
    renamed: dict[str, str] = {}
    for layer in layers:
        norm = choose(layer.name) if layer.kind == "batchnorm" else "batch"
        if norm not in NORMS:
            raise HwmodelError(f"layer {layer.name}: " + unknown("normalization", norm, NORMS))
        layer = dataclasses.replace(layer, inputs=tuple(renamed.get(name, name) for name in layer.inputs))
        if layer.kind == "fork":  # named after the layer it copies
            renamed[layer.name] = f"{layer.inputs[0]}.fork"
            layer = dataclasses.replace(layer, name=renamed[layer.name])
        if norm == "folded":
            _fold(layer, done, renamed)
        elif norm == "batch":
            done.append(layer)
        else:
            groups = n_groups(layer.out_channels) if norm == "group" else 1
            done.append(dataclasses.replace(layer, kind=_KINDS[norm], groups=groups))
    return tuple(done)


def _fold(norm: Layer, done: list[Layer], renamed: dict[str, str]) -> None:
    """Put `norm` into the layer before it, or behind it as a normalization by fixed statistics."""
    place = next(i for i, layer in enumerate(done) if layer.name == norm.inputs[0])
    if not done[place].normalized:
        done.append(dataclasses.replace(norm, kind="frozennorm"))
        return
    done[place] = dataclasses.replace(done[place], bias=True, activation=norm.activation, normalized=False)
    renamed[norm.name] = done[place].name


def for_inference(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """`layers` with every normalization folded that has running statistics, without forks and loss."""
    done: list[Layer] = []
    renamed: dict[str, str] = {}
    for layer in layers:
        layer = dataclasses.replace(layer, inputs=tuple(renamed.get(name, name) for name in layer.inputs))
        if layer.kind in _RUNNING:
            _fold(layer, done, renamed)
        elif layer.kind == "fork":
            renamed[layer.name] = layer.inputs[0]
        elif layer.kind != "loss":
            done.append(layer)
    return tuple(done)
