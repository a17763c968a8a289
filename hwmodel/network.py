"""A network's shapes without its framework: the Layers in order of execution, readable from JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any

from hwmodel import normalization, records
from hwmodel.errors import HwmodelError, unknown
from hwmodel.operations import Layer
from hwmodel.trace import read_layer


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

    def choose_trained(self, layers: str, bias_only: str = "") -> tuple[frozenset[str], frozenset[str]]:
        """(frozen, bias_only) layer names when those matching the comma-separated globs `layers` ("all" is "*") train,
        and of those matching `bias_only` the bias alone. Raises HwmodelError for a glob that matches no such layer."""
        names = [layer.name for layer in self.layers if layer.n_parameters]

        def matching(globs: str) -> set[str]:
            found: set[str] = set()
            for pattern in (g.strip() for g in globs.split(",") if g.strip()):
                hits = {name for name in names if fnmatchcase(name, "*" if pattern == "all" else pattern)}
                if not hits:
                    raise HwmodelError(f"no trainable layer matches {pattern!r} (layers: {', '.join(names)})")
                found |= hits
            return found

        biases = matching(bias_only)
        trained = matching(layers) | biases
        return frozenset(name for name in names if name not in trained), frozenset(biases)

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
