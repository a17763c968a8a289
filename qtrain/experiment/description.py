"""Experiment: one frozen description of a run, the same in Python, in TOML and on the command line."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from hwmodel.errors import shown
from qtrain.errors import QtrainError
from qtrain.experiment import toml
from qtrain.experiment.identity import code_version, digest
from qtrain.experiment.layers import LayerRule
from qtrain.experiment.learning import Adversarial, Contrast, SelfAdaptive, Sinkhorn, Stream
from qtrain.experiment.methods import Filter, Prune
from qtrain.experiment.options import Interval, Section, nearest, option
from qtrain.experiment.plans import COMPANIONS, chosen, written_out
from qtrain.experiment.sections import Data, Execution, Numbers, Optimizer, Train
from qtrain.globs import matching


@dataclass(frozen=True)
class Experiment(Section):
    """A run's whole description; always valid: raises QtrainError naming key, value and what is valid."""

    PREFIX: ClassVar[str] = ""
    model: str = option("digits-cnn", "network, or package.module:factory of your own (this runs its code)")
    input_shape: tuple[int, ...] = option(
        (), "C,H,W of the network's input; empty: the model's own", valid=Interval(1, 2**16)
    )
    n_classes: int = option(0, "classes told apart; 0: the data's", flag="--classes", valid=Interval(0, 2**20))
    init: str = option("", "weights to start from (.safetensors)")
    recipe: str = option("supervised", "what is learned from a batch: see qtrain recipes")
    seed: int = option(0, "seed of weights, data order and rounding noise", valid=Interval(0, 2**32 - 1))
    data: Data = field(default_factory=Data)
    stream: Stream = field(default_factory=Stream)
    numbers: Numbers = field(default_factory=Numbers)
    filter: Filter = field(default_factory=Filter)
    prune: Prune = field(default_factory=Prune)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    self_adaptive: SelfAdaptive = field(default_factory=SelfAdaptive)
    sinkhorn: Sinkhorn = field(default_factory=Sinkhorn)
    contrast: Contrast = field(default_factory=Contrast)
    adversarial: Adversarial = field(default_factory=Adversarial)
    run: Execution = field(default_factory=Execution)
    layers: tuple[LayerRule, ...] = ()

    def cross_check(self) -> None:
        if len(self.input_shape) not in (0, 3):
            raise QtrainError(
                f"input_shape (--input-shape) = {shown(self.input_shape)}: must be C,H,W, three whole numbers"
            )
        if len({rule.glob for rule in self.layers}) < len(self.layers):
            raise QtrainError("layers: two rules for one glob; give each glob one table")
        for rule in self.layers:
            rule.apply(self.numbers)
        if self.numbers.update == "shift" and (self.optimizer.momentum or self.filter.momentum):
            raise QtrainError("numbers.update (--update) = 'shift': has no momentum; give --momentum 0")
        if self.numbers.update == "shift" and self.optimizer.weight_decay:
            raise QtrainError("numbers.update (--update) = 'shift': has no decay; give --weight-decay 0")

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> "Experiment":
        """From nested mappings as tomllib reads them; keys left out keep their defaults."""
        return cls()._updated(tables)

    @classmethod
    def from_toml(cls, text: str, source: str = "experiment") -> "Experiment":
        """From TOML text; `source` (a file's name) opens every error message."""
        try:
            return cls.from_tables(toml.parse_tables(text))
        except QtrainError as error:
            raise QtrainError(f"{source}: {error}") from None

    def to_tables(self) -> dict[str, Any]:
        """Every key with its value, as nested mappings; `from_tables` is the inverse."""
        tables = dataclasses.asdict(self)
        tables["layers"] = {rule.glob: dict(rule.values) for rule in self.layers}
        return tables if self.layers else {key: tables[key] for key in tables if key != "layers"}

    def to_toml(self) -> str:
        """TOML text of every key; `from_toml` reads back an equal experiment."""
        return toml.dump_tables(self.to_tables())

    def with_options(self, options: Mapping[str, Any]) -> "Experiment":
        """A copy with options set by their dotted keys, such as {"numbers.weight_bits": 4, "seed": 1}."""
        tables: dict[str, Any] = {}
        for key, value in options.items():
            section, dot, name = key.partition(".")
            if dot:
                tables.setdefault(section, {})[name] = value
            else:
                tables[key] = value
        return self._updated(tables)

    def with_layer(self, glob: str, **values: Any) -> "Experiment":
        """A copy with one more rule for the layers whose names match `glob`, stronger than those before it.

        An earlier rule of the same glob goes.
        """
        return self._updated({"layers": {glob: values}})

    def bits(self, n: int) -> "Experiment":
        """A copy at 2 to 16 bits for weights, activations, errors, gradients; 32: float32 everywhere."""
        return self.with_options({"numbers.bits": n})

    def numbers_for(self, layer: str) -> Numbers:
        """The number formats of the layer of this name; of the rules that match, later ones win."""
        numbers = self.numbers
        for rule in self._rules_of(layer):
            numbers = rule.apply(numbers)
        return numbers

    def prune_keep_for(self, layer: str) -> float:
        """The share of error channels kept in the layer of this name."""
        return float(self._ruled(layer, "prune_keep", self.prune.keep))

    def norm_for(self, layer: str) -> str:
        """What the batch normalization of this name becomes."""
        return str(self._ruled(layer, "norm", self.train.norm))

    @property
    def norms(self) -> frozenset[str]:
        """Every word that `norm_for` may answer."""
        return frozenset([self.train.norm, *(dict(r.values).get("norm", self.train.norm) for r in self.layers)])

    def _ruled(self, layer: str, key: str, default: Any) -> Any:
        found = [dict(rule.values).get(key) for rule in self._rules_of(layer)]
        return next((value for value in reversed(found) if value is not None), default)

    def _rules_of(self, layer: str) -> list[LayerRule]:
        return matching(layer, {rule.glob: rule for rule in self.layers})

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the keys that can change a run's result; equal on every machine."""
        return digest(self)

    @property
    def id(self) -> str:
        """16 hexadecimal digits of those keys and of the code that computes the result: the run's id."""
        return digest(self, code_version())

    def _accompanied(self, tables: Mapping[str, Any]) -> Mapping[str, Any]:
        """`tables` with what a plan that they choose says of other sections."""
        numbers = tables.get("numbers")
        plan = numbers.get("plan", "") if isinstance(numbers, Mapping) else ""
        found = COMPANIONS.get(plan, {}) if isinstance(plan, str) and plan != self.numbers.plan else {}
        given = {key: tables.get(key, {}) for key in found}
        return {
            **tables,
            **{key: {**found[key], **value} for key, value in given.items() if isinstance(value, Mapping)},
        }

    def _updated(self, tables: Mapping[str, Any]) -> "Experiment":
        known = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changes: dict[str, Any] = {}
        for key, value in self._accompanied(tables).items():
            if key not in known:
                raise _unknown(key)
            if key == "layers":
                added = LayerRule.all_of(value)
                changes[key] = (*(r for r in self.layers if r.glob not in {n.glob for n in added}), *added)
            elif isinstance(known[key], Section):
                changes[key] = _update_section(known[key], value)
            else:
                changes[key] = value
        return replace(self, **changes)


def _update_section(section: Any, values: object) -> Any:
    if not isinstance(values, Mapping):
        raise QtrainError(f"{section.PREFIX[:-1]} = {shown(values)}: must be a table, [{section.PREFIX[:-1]}]")
    changes = dict(values)
    if isinstance(section, Numbers):
        shorthand = "bits" in changes or "format" in changes
        leave_float32 = {"plan": Numbers.plan} if shorthand and section.plan == "float32" else {}
        changes = leave_float32 | written_out(changes)
        changes = chosen(changes.get("plan", section.plan), section.plan) | changes
    names = [f.name for f in dataclasses.fields(section)]
    for name in changes:
        if name not in names:
            raise _unknown(f"{section.PREFIX}{name}")
    return replace(section, **changes)


def _unknown(key: str) -> QtrainError:
    from qtrain.experiment.catalogue import options

    # whoever writes `lr` or `weight_bits` at the top level means the option of that name on the command line
    full = {o.flag[2:].replace("-", "_"): o.key for o in options()}
    full |= {name: f"numbers.{name}" for name in ("bits", "format")}
    if key in full:
        return QtrainError(f"unknown key {shown(key)}; did you mean {full[key]!r}?")
    sections = {name.partition(".")[0] for name in full.values()} | {"layers"}
    return QtrainError(f"unknown key {shown(key)}{nearest(key, [*full.values(), *sections])}")


def load(path: str | Path) -> Experiment:
    """Read an experiment's TOML file; raises QtrainError in one line naming file and key."""
    return Experiment.from_toml(toml.read_text(Path(path)), str(path))
