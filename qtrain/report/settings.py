"""What tells settings apart: the options in which they differ, in the words of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment, options

SEED = "seed"
BITS = "bits"
_WIDTHS = tuple(f"numbers.{name}" for name in ("weight_bits", "activation_bits", "error_bits", "gradient_bits"))


def differences(experiments: Sequence[Experiment]) -> list[dict[str, Any]]:
    """For each experiment, its values of the options that are not equal in all; the seed apart.

    Keys are the options of the command line without dashes; number formats that `--bits` alone describes in every
    experiment are given as bits.
    """
    uniform = [uniform_bits(experiment) for experiment in experiments]
    as_bits = all(bits is not None for bits in uniform)
    varied = []
    for option in options():
        skipped = option.key == SEED or (as_bits and option.key.startswith("numbers.") and option.key in _SET_BY_BITS)
        if option.changes_result and not skipped and len({value(e, option.key) for e in experiments}) > 1:
            varied.append(option)
    found: list[dict[str, Any]] = []
    for experiment, bits in zip(experiments, uniform, strict=True):
        own: dict[str, Any] = {BITS: bits} if as_bits and len(set(uniform)) > 1 else {}
        found.append(own | {option.flag[2:]: value(experiment, option.key) for option in varied})
    for own in found:
        _as_one_format(own)
    if len({experiment.layers for experiment in experiments}) > 1:
        for own, experiment in zip(found, experiments, strict=True):
            own["layers"] = "; ".join(f"{rule.glob} {_rule(dict(rule.values))}" for rule in experiment.layers) or "-"
    return found


def _as_one_format(own: dict[str, Any]) -> None:
    """Name the format of the four roles once where they have the same one."""
    formats = {own.get(key) for key in _FORMATS}
    if len(formats) == 1 and None not in formats:
        own |= {"format": formats.pop()}
        for key in _FORMATS:
            del own[key]


_FORMATS = ("weight-format", "activation-format", "error-format", "gradient-format")
_SET_BY_BITS = (*_WIDTHS, "numbers.plan", "numbers.norm_bits")


def _rule(values: dict[str, Any]) -> str:
    """A layer's rule in the words of `label`."""
    widths = {values.get(key.partition(".")[2]) for key in _WIDTHS}
    if len(widths) == 1 and None not in widths:
        values = {BITS: widths.pop()} | {key: item for key, item in values.items() if f"numbers.{key}" not in _WIDTHS}
    return " ".join(f"{key.replace('_', '-')} {_text(item)}" for key, item in values.items())


def uniform_bits(experiment: Experiment) -> int | None:
    """The N of the `--bits N` that gives the experiment's widths; None if none does."""
    for bits in (32 if experiment.numbers.plan == "float32" else experiment.numbers.weight_bits,):
        try:
            same = experiment.bits(bits).numbers == experiment.numbers
        except QtrainError:  # master weights narrower than the weights
            return None
        if same:
            return bits
    return None


def value(experiment: Any, key: str) -> Any:
    """The value of a dotted option."""
    for name in key.split("."):
        experiment = getattr(experiment, name)
    return experiment


def label(values: dict[str, Any]) -> str:
    """One line for a setting: "bits 4, filter-rate 0.3"."""
    return ", ".join(f"{key} {_text(item)}" for key, item in values.items()) or "all defaults alike"


def _text(item: Any) -> str:
    if isinstance(item, bool):
        return "on" if item else "off"
    if isinstance(item, tuple):
        return ",".join(map(str, item)) or "-"
    return f"{item:g}" if isinstance(item, float) else str(item) or "-"
