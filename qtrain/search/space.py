"""What a search varies: options with the values to choose from, and the bits of the layers at both ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hwmodel.operations import MAC_KINDS
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
BATCH_SHARES = (1, 2, 4, 8)
"""Parts of the base experiment's batch size: the batch decides what a step costs and what memory it takes."""


@dataclass(frozen=True)
class Space:
    """The dimensions of a search (name -> values) around an experiment."""

    base: Experiment
    dimensions: Mapping[str, tuple[Any, ...]]

    @classmethod
    def of(cls, grid: Grid, fixed: Iterable[str] = ()) -> Space:
        """The axes of the grid; and the default dimensions of all options that are neither axes nor `fixed`.

        Of a network that starts from trained weights also the subset of layers to train.
        """
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
            size = grid.base.train.batch_size
            found[BATCH] = tuple(sorted({max(size // part, 1) for part in BATCH_SHARES}))
        if grid.base.init and SUBSET not in taken:
            found[SUBSET] = _subsets(_mac_layers(grid.base))
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
        names = _mac_layers(self.base)
        widths = dict.fromkeys((role.partition(".")[2] for role in ROLES), bits)
        for name in dict.fromkeys((names[0], names[-1])):
            experiment = experiment.with_layer(name, **widths)
        return experiment


def _mac_layers(experiment: Experiment) -> list[str]:
    """Names of the model's layers with weights, from input to output."""
    from qtrain.estimate import shapes

    shape = ",".join(map(str, experiment.input_shape)) or None
    return [layer.name for layer in shapes(experiment.model, shape).layers if layer.kind in MAC_KINDS]


def _subsets(names: list[str]) -> tuple[str, ...]:
    """All layers, the later half, the last one."""
    half = names[len(names) // 2 :]
    return tuple(dict.fromkeys(("all", ",".join(half), names[-1])))
