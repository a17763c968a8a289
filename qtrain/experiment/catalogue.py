"""The list of all options, from which command lines, documentation and sweeps are generated."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin

from qtrain.experiment.description import Experiment
from qtrain.experiment.options import Interval, Section, checked, parse


@dataclass(frozen=True)
class Option:
    """One option: `key` is dotted ("numbers.weight_bits"), `type` that of one item where `per_item`."""

    key: str
    flag: str
    type: Any
    default: Any
    help: str
    choices: tuple[str, ...]
    range: str
    is_list: bool
    per_item: bool
    changes_result: bool
    field: dataclasses.Field

    def parse(self, text: str) -> Any:
        """The value written as `text`; raises QtrainError naming option, value and what is valid."""
        return checked(self.field, f"{self.key} ({self.flag})", text, parse)


@cache
def options() -> tuple[Option, ...]:
    """Every option of an experiment in the order of the file; [layers] tables apart."""
    return tuple(_of(Experiment()))


def _of(section: Any) -> Iterator[Option]:
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if isinstance(value, Section):
            yield from _of(value)
        elif "valid" in field.metadata:
            about = field.metadata
            is_list = get_origin(field.type) is tuple
            yield Option(
                key=section.PREFIX + field.name,
                flag=section.flag(field),
                type=get_args(field.type)[0] if is_list else field.type,
                default=value,
                help=about["help"],
                choices=about["valid"] if isinstance(about["valid"], tuple) else (),
                range=str(about["valid"]) if isinstance(about["valid"], Interval) else "",
                is_list=is_list,
                per_item=about["per_item"],
                changes_result=about["result"],
                field=field,
            )
