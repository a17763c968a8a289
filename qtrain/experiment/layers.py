"""Rules for single layers of the main network: [layers."glob"] tables that override number formats and pruning."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hwmodel.errors import shown
from qtrain.errors import QtrainError
from qtrain.experiment.methods import Prune
from qtrain.experiment.options import checked, convert, nearest
from qtrain.experiment.plans import written_out
from qtrain.experiment.sections import Numbers, Train

_FIELDS = {f.name: f for f in dataclasses.fields(Numbers) if f.name not in ("plan", "update", "bi_precision")}
_VALID = "prune_keep, norm and the keys of [numbers] but plan, update and bi_precision"
_FIELDS["prune_keep"] = next(f for f in dataclasses.fields(Prune) if f.name == "keep")
_FIELDS["norm"] = next(f for f in dataclasses.fields(Train) if f.name == "norm")


@dataclass(frozen=True)
class LayerRule:
    """Values for the layers whose names match `glob` (as fnmatch, with case)."""

    glob: str
    values: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, glob: str, values: object) -> "LayerRule":
        """A checked rule; raises QtrainError naming the key, the value and what is valid."""
        where = f"layers.{shown(glob)}"
        if not isinstance(values, Mapping) or not values:
            raise QtrainError(f"{where}: must be a table with at least one of {_VALID}")
        _check_glob(glob, where)
        values = written_out(values)
        for name in values:
            if name not in _FIELDS:
                hint = nearest(name, _FIELDS)
                raise QtrainError(f"{where}: unknown key {shown(name)}{hint} (valid: {_VALID})")
        pairs = ((name, checked(_FIELDS[name], f"{where}.{name}", v, convert)) for name, v in values.items())
        return cls(glob, tuple(pairs))

    @classmethod
    def all_of(cls, tables: object) -> "tuple[LayerRule, ...]":
        """One rule for each table, in the order of the file."""
        if not isinstance(tables, Mapping):
            raise QtrainError('layers: must be tables such as [layers."conv1*"]')
        return tuple(cls.of(glob, values) for glob, values in tables.items())

    @property
    def formats(self) -> dict[str, Any]:
        """Its keys of [numbers]."""
        return {key: value for key, value in self.values if key not in ("prune_keep", "norm")}

    def apply(self, numbers: Numbers) -> Numbers:
        """`numbers` with this rule's formats; raises QtrainError where the two contradict each other."""
        try:
            return dataclasses.replace(numbers, **self.formats)
        except QtrainError as error:
            raise QtrainError(f"layers.{shown(self.glob)}: {error}") from None


def _check_glob(glob: str, where: str) -> None:
    """Raise QtrainError unless `glob` is usable as a key."""
    try:
        convert(glob, str)
    except ValueError as error:
        raise QtrainError(f"{where}: {error}") from None
