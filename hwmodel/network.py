"""A network's shapes without its framework: the Layers in order of execution, readable from JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any

from hwmodel import normalization, records
from hwmodel.errors import HwmodelError, unknown
from hwmodel.operations import MAC_KINDS, Layer
from hwmodel.trace import read_layer


@dataclass(frozen=True)
class Trained:
    """Layers that do not learn, layers whose biases alone do, and layers of which the first `channels` output channels
    do."""

    frozen: frozenset[str]
    bias_only: frozenset[str]
    channels: Mapping[str, int]


@dataclass(frozen=True)
class Network:
    """Layers in order of execution; the first is the input, the last the loss."""

    name: str
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for layer in self.layers:
            missing = [name for name in layer.inputs if name not in seen]
            if missing:
                raise HwmodelError(f"network {self.name!r}: layer {layer.name!r} reads {missing[0]!r} before it exists")
            if layer.name in seen:
                raise HwmodelError(f"network {self.name!r}: two layers are named {layer.name!r}")
            seen.add(layer.name)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass of one instance."""
        return sum(layer.macs for layer in self.layers)

    @property
    def n_parameters(self) -> int:
        return sum(layer.n_parameters for layer in self.layers)

    def needs_error(self, trained: frozenset[str]) -> frozenset[str]:
        """Names of the layers whose output's error is needed: those with a trained layer at or below them."""
        reached: set[str] = set()
        for layer in self.layers:
            if layer.name in trained or any(name in reached for name in layer.inputs):
                reached.add(layer.name)
        return frozenset(reached)

    def choose_trained(self, layers: str, bias_only: str = "") -> Trained:
        """What trains when layers matching the comma-separated globs `layers` ("all" is "*") do, and of those matching
        `bias_only` the bias alone. A glob may end in ":SHARE" of the output channels of each convolution and linear
        layer it matches. Raises HwmodelError for a glob that matches no such layer, or no share above 0 and up to 1."""
        layered = {layer.name: layer for layer in self.layers if layer.n_parameters}

        def matching(globs: str) -> dict[str, float]:
            found: dict[str, float] = {}
            for pattern, share in _globs(globs):
                hits = [name for name in layered if fnmatchcase(name, "*" if pattern == "all" else pattern)]
                if not hits:
                    raise HwmodelError(f"no trainable layer matches {pattern!r} (layers: {', '.join(layered)})")
                found |= dict.fromkeys(hits, share)
            return found

        biases, shares = matching(bias_only), matching(layers)
        channels = {name: max(1, round(share * layered[name].out_channels)) for name, share in shares.items()
                    if share < 1 and layered[name].kind in MAC_KINDS and name not in biases}  # fmt: skip
        for name in channels:
            layer = layered[name]
            if layer.groups not in (1, layer.out_channels):
                raise HwmodelError(f"layer {name!r} has {layer.groups} groups: train all of its channels or none")
        frozen = frozenset(layered) - shares.keys() - biases.keys()
        return Trained(frozen, frozenset(biases), channels)

    def normalized_by(self, choose: Callable[[str], str]) -> Network:
        """The network with each batch normalization become what `choose` says of its name (hwmodel.normalization)."""
        return Network(self.name, normalization.exchanged(self.layers, choose))

    def folded(self) -> Network:
        """The network for inference: each normalization folded into the conv or linear layer before it."""
        return Network(self.name, normalization.for_inference(self.layers))

    def to_json(self) -> dict[str, Any]:
        """Plain data; fields at their default value are left out."""
        defaults = {f.name: f.default for f in dataclasses.fields(Layer)}
        rows = [
            {key: value for key, value in dataclasses.asdict(layer).items() if value != defaults[key]}
            for layer in self.layers
        ]
        return {"name": self.name, "layers": rows}

    @classmethod
    def from_json(cls, data: Any) -> Network:
        """Inverse of to_json. Raises HwmodelError naming what does not fit."""
        rows = records.items(records.field(data, "layers", "network"), "network: layers")
        name = records.text(records.field(data, "name", "network"), "network: name")
        return cls(name, tuple(read_layer(row) for row in rows))


def _globs(text: str) -> Iterator[tuple[str, float]]:
    """Globs separated by commas, each with the share behind its colon (1 without one)."""
    for item in (part.strip() for part in text.split(",")):
        pattern, colon, given = item.partition(":")
        try:
            share = float(given) if colon else 1.0
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise HwmodelError(f"trained layers {item!r}: the share behind the colon must be above 0 and at most 1")
        if pattern:
            yield pattern, share


def shipped() -> list[str]:
    """Names of the networks whose shapes are shipped with hwmodel."""
    folder = resources.files("hwmodel") / "networks"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


@cache
def load(name: str) -> Network:
    """A shipped network by name. Raises HwmodelError for an unknown one."""
    if name not in shipped():
        raise HwmodelError(unknown("network", name, shipped()))
    text = (resources.files("hwmodel") / "networks" / f"{name}.json").read_text()
    return Network.from_json(json.loads(text))
