"""Options: a frozen dataclass field with its help text, flag and the values it allows, checked generically.

A section is a frozen dataclass derived from `Section`; its fields are made by `option(...)`. The default in
the field is the only default there is: TOML keys, command-line options and checks are read from the fields.
"""

import dataclasses
import difflib
import math
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args, get_origin

from hwmodel.errors import shown
from qtrain.errors import QtrainError

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` to `high`; an open end excludes its bound."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        low = f"{'above' if self.low_open else 'at least'} {_plain(self.low)}" if self.low > -math.inf else ""
        high = f"{'below' if self.high_open else 'at most'} {_plain(self.high)}" if self.high < math.inf else ""
        if low and high and not (self.low_open or self.high_open):
            return f"{_plain(self.low)} to {_plain(self.high)}"
        return " and ".join(filter(None, (low, high)))


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


SHARE = Interval(0, 1)
KEPT = Interval(0, 1, low_open=True)
BELOW_ONE = Interval(0, 1, high_open=True)
POSITIVE = Interval(0, low_open=True)
NOT_NEGATIVE = Interval(0)


def option(
    default: Any,
    help: str,
    *,
    flag: str = "",
    valid: Interval | tuple[str, ...] | None = None,
    per_item: bool = False,
    result: bool = True,
) -> Any:
    """A dataclass field.

    `flag`: its command-line option where it is not made from the field's name. `valid`: allowed
    numbers or words, of each item for a list. `per_item`: the command-line option gives one item of the list
    and may be repeated. `result`: whether it can change what a run computes, and so enters the run's id.
    """
    about = {"help": help, "flag": flag, "valid": valid, "per_item": per_item, "result": result}
    return dataclasses.field(default=default, metadata=about)


def nearest(name: object, valid: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the closest of `valid`, or nothing."""
    found = difflib.get_close_matches(str(name), list(valid), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def convert(value: Any, kind: Any) -> Any:
    """`value` as the field's type; raises ValueError naming what is wanted.

    Whole numbers may stand for floats, "a,b" for lists.
    """
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",")] if value.strip() else []
            return tuple(parse(part, item) for part in value)
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list of {_WORDS[item]}")
        return tuple(convert(part, item) for part in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"must be {_WORDS[kind]}")
    if kind is int and abs(value) >= 2**63:
        raise ValueError("must be below 2**63 in size")
    if kind is str and any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise ValueError("must be text without control characters")
    return value


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def parse(text: str, kind: Any) -> Any:
    """`text` from a command line as the field's type; raises ValueError naming what is wanted."""
    if kind is bool:
        if text.lower() not in TRUE + FALSE:
            raise ValueError("must be true or false")
        return text.lower() in TRUE
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"must be {_WORDS[kind]}") from None
    return convert(text, kind)


def whole_or_text(text: str) -> int | str:
    """The whole number written as `text`; what is none stays text, for the check of its option to name."""
    try:
        return int(text)
    except ValueError:
        return text


def check(value: Any, valid: Interval | tuple[str, ...] | None) -> None:
    """Raise ValueError unless `value` (each item of a list) is allowed."""
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(valid, tuple) and item not in valid:
            raise ValueError(f"must be one of {', '.join(filter(None, valid))}{nearest(item, valid)}")
        if isinstance(valid, Interval) and item not in valid:
            raise ValueError(f"must be {valid}")


def checked(field: dataclasses.Field, name: str, value: object, read: Callable[[Any, Any], Any]) -> Any:
    """`read(value, type)` after all checks of the field; raises QtrainError "name = value: what is valid"."""
    try:
        result = read(value, field.type)
        check(result, field.metadata["valid"])
    except ValueError as error:
        raise QtrainError(f"{name} = {shown(value)}: {error}") from None
    return result


class Section:
    """Base of the option sections: every instance holds valid values, whoever made it."""

    PREFIX: ClassVar[str] = ""  # of its keys
    FLAG_PREFIX: ClassVar[str] = "--"

    @classmethod
    def flag(cls, field: dataclasses.Field) -> str:
        """The command-line option of a field, such as "--weight-bits"."""
        return field.metadata["flag"] or cls.FLAG_PREFIX + field.name.replace("_", "-")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if "valid" in field.metadata:
                name = f"{self.PREFIX}{field.name} ({self.flag(field)})"
                object.__setattr__(self, field.name, checked(field, name, value, convert))
            elif isinstance(field.type, type) and not isinstance(value, field.type):
                raise QtrainError(f"{field.name} = {shown(value)}: must be {field.type.__name__}")
        self.cross_check()

    def cross_check(self) -> None:
        """Raise QtrainError where values that are valid alone contradict each other."""
