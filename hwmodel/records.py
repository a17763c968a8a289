"""Reading plain data (JSON) back into frozen dataclasses: every field is there, of its type and of a sane size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hwmodel.errors import HwmodelError, shown, unknown

T = TypeVar("T")
MAX_COUNT = 2**63 - 1
"""Steps, instances and repetitions: what a 64-bit counter holds."""
MAX_BITS = 64
"""The widest number of any target."""
_MISSING = object()


def record(cls: type[T], data: Any, where: str) -> T:
    """A dataclass of whole numbers, texts, booleans and tuples of texts from a mapping of its fields.

    Raises HwmodelError opening with `where`, naming the field and its value.
    """
    values = mapping(data, where)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise HwmodelError(f"{where}: " + unknown("field", name, fields))
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise HwmodelError(f"{where}: {name} is missing")
    return cls(**{name: _typed(value, str(fields[name].type), f"{where}: {name}") for name, value in values.items()})


def field(data: Any, name: str, where: str) -> Any:
    """The value called `name` in a mapping."""
    value = mapping(data, where).get(name, _MISSING)
    if value is _MISSING:
        raise HwmodelError(f"{where}: {name} is missing")
    return value


def mapping(data: Any, where: str) -> Mapping[str, Any]:
    """`data` if it is a mapping of names."""
    if not isinstance(data, Mapping):
        raise HwmodelError(f"{where} is {shown(data)}, not a table of names and values")
    return data


def items(data: Any, where: str) -> list[Any]:
    """`data` if it is a list."""
    if not isinstance(data, list | tuple):
        raise HwmodelError(f"{where} is {shown(data)}, not a list")
    return list(data)


def text(data: Any, where: str) -> str:
    """`data` if it is a text."""
    if not isinstance(data, str):
        raise HwmodelError(f"{where} is {shown(data)}, not a text")
    return data


def texts(data: Any, where: str) -> tuple[str, ...]:
    """`data` if it is a list of texts."""
    return tuple(text(item, where) for item in items(data, where))


def flag(data: Any, where: str) -> bool:
    """`data` if it is true or false."""
    if not isinstance(data, bool):
        raise HwmodelError(f"{where} is {shown(data)}, not true or false")
    return data


def whole(data: Any, where: str, low: int = 0, high: int = MAX_COUNT) -> int:
    """`data` if it is a whole number from `low` to `high`."""
    if isinstance(data, bool) or not isinstance(data, int) or not low <= data <= high:
        raise HwmodelError(f"{where} is {shown(data)}, not a whole number from {low} to {high}")
    return data


def number(data: Any, where: str, low: float = 0.0, high: float = math.inf) -> float:
    """`data` if it is a finite number from `low` to `high`."""
    fits = isinstance(data, int | float) and not isinstance(data, bool) and low <= data <= high
    if not fits or not abs(data) < 1e308:
        raise HwmodelError(f"{where} is {shown(data)}, not a number from {low:g} to {high:g}")
    return float(data)


def by_name(data: Any, where: str) -> Iterable[tuple[str, Any, str]]:
    """(name, value, where it stands) of a mapping."""
    return [(name, value, f"{where}: {name!r}") for name, value in mapping(data, where).items()]


def _typed(value: Any, kind: str, where: str) -> Any:
    """`value` as a field declared as `kind`; sizes of bits are checked here, those of shapes by the class."""
    if kind == "int":
        return whole(value, where, 1, MAX_BITS) if where.endswith("_bits") else whole(value, where)
    return {"bool": flag, "str": text, "tuple[str, ...]": texts}[kind](value, where)
