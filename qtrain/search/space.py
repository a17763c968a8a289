"""What a search varies: options with the values to choose from, and the bits of the layers at both ends."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hwmodel.operations import MAC_KINDS, Layer
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.sweep.grid import BITS, Grid

ROLES = ("numbers.weight_bits", "numbers.activation_bits", "numbers.error_bits", "numbers.gradient_bits")
ENDS = "bits of the first and last layer"
"""The one dimension that is no option: a rule for the layers that read the input and give the output."""
_SAME = 0
DEFAULTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(ROLES, (4, 5, 6, 8)),
    "filter.rate": (0.1, 0.2, 0.3, 0.5, 1.0),
    "prune.keep": (0.2, 0.4, 0.6, 0.8, 1.0),
    ENDS: (_SAME, 8),
}
SUBSET, BATCH = "train.layers", "train.batch_size"
BATCH_FACTOR = 4
"""Batch sizes searched: the base experiment's and every 4th part of it down to 1, because the batch decides what a step
costs and what memory it takes."""
SAVINGS = (BITS, *ROLES, ENDS, "filter.", "prune.", SUBSET)
"""Dimensions that spare work: dense float32 training, against which an accuracy is lost, has none of them."""


@dataclass(frozen=True)
class Space:
    """The dimensions of a search (name -> values) around an experiment."""

    base: Experiment
    dimensions: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, grid: Grid, fixed: Iterable[str] = ()) -> Space:
        """The axes of the grid; and the default dimensions of all options that are neither axes nor `fixed`."""
        taken = {*fixed, *grid.axes}
        if BITS in taken or grid.base.numbers.plan == "float32":
            taken |= {*ROLES, ENDS}
        if grid.base.layers:
            taken.add(ENDS)
        if grid.base.filter.kind != "instance" and "filter.kind" not in grid.axes:
            taken.add("filter.rate")
        if "channel" not in grid.base.prune.kind and "prune.kind" not in grid.axes:
            taken.add("prune.keep")
        found = {name: values for name, values in DEFAULTS.items() if name not in taken}
        if BATCH not in taken:
            sizes = [grid.base.train.batch_size]
            while sizes[-1] > 1:
                sizes.append(max(sizes[-1] // BATCH_FACTOR, 1))
            found[BATCH] = tuple(sorted(sizes))
        if SUBSET not in taken:
            found[SUBSET] = _subsets(_mac_layers(grid.base), trained=bool(grid.base.init))
        dimensions = {**grid.axes, **found}
        if not dimensions:
            raise QtrainError("nothing to search: give some option several values by commas")
        return cls(grid.base, dimensions)

    def experiment(self, choice: Mapping[str, Any]) -> Experiment:
        """The experiment of one value a dimension."""
        experiment = self.base.with_options({name: value for name, value in choice.items() if name != ENDS})
        bits = choice.get(ENDS, _SAME)
        if bits == _SAME:
            return experiment
        names = [layer.name for layer in _mac_layers(self.base)]
        widths = dict.fromkeys((role.partition(".")[2] for role in ROLES), bits)
        for name in dict.fromkeys((names[0], names[-1])):
            experiment = experiment.with_layer(name, **widths)
        return experiment

    def baselines(self) -> list[Experiment]:
        """Dense float32 training, at every value of the dimensions that spare no work."""
        rest = {name: values for name, values in self.dimensions.items() if not name.startswith(SAVINGS)}
        dense = {"numbers.bits": 32, "filter.kind": "none", "prune.kind": "none"}
        choices = [dict(zip(rest, values, strict=True)) for values in itertools.product(*rest.values())]
        return [dataclasses.replace(self.base.with_options(choice | dense), layers=()) for choice in choices]


def _mac_layers(experiment: Experiment) -> list[Layer]:
    """The model's layers with weights, from input to output."""
    from qtrain.estimate import shapes

    shape = ",".join(map(str, experiment.input_shape)) or None
    return [layer for layer in shapes(experiment.model, shape).layers if layer.kind in MAC_KINDS]


def _subsets(layers: list[Layer], trained: bool) -> tuple[str, ...]:
    """All layers, and all but the one with the most parameters: its gradient and update take the most memory, and it
    may stay at random weights. Of a `trained` network also the later half, the last two and the last layer."""
    names = [layer.name for layer in layers]
    largest = max(layers, key=lambda layer: layer.n_parameters).name
    found = [names, [name for name in names if name != largest]]
    if trained:
        found += [names[len(names) // 2 :], names[-2:], names[-1:]]
    return ("all", *dict.fromkeys(",".join(one) for one in found[1:] if one))
