"""Device profiles: one TOML a device, every constant with its value, unit, source and basis."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hwmodel import cores
from hwmodel.device_schema import ABSENT, BASES, COMMON_TEXTS, COUNTS, LEAST_RATE, RATES, SCHEMAS, Schema
from hwmodel.errors import HwmodelError, shown, unknown

MAX_FILE_BYTES = 1 << 20
"""A profile takes 4 kB."""
MAX_DOTS, MAX_KEY, MAX_VALUE = 4, 100, 1e18
"""Bounds of a key and of a constant: beyond any device, and no price of a sane trace overflows."""
_FIELDS = ("value", "unit", "source", "basis")
_CLOCK = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?MHz", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number a price rests on. basis: measured, datasheet, published, derived or assumed."""

    value: float
    unit: str
    source: str
    basis: str


@dataclass(frozen=True, eq=False)
class Device:
    """A device profile; `constants` by dotted key in SI units (see hwmodel.device_schema), `texts` likewise."""

    name: str
    kind: str
    title: str
    basis: str
    texts: Mapping[str, str]
    constants: Mapping[str, Constant]

    def value(self, key: str) -> float:
        """The constant `key`. Raises HwmodelError if the profile lacks it."""
        if key not in self.constants:
            raise HwmodelError(f"device {self.name!r} lacks {key!r}; add it to its TOML")
        return self.constants[key].value

    def get(self, key: str, default: float) -> float:
        """The constant `key`, or `default` where the profile leaves it out."""
        return self.constants[key].value if key in self.constants else default

    def section(self, prefix: str) -> dict[str, Constant]:
        """The constants under `prefix.`, keyed by the rest of their path."""
        start = prefix + "."
        return {key[len(start) :]: c for key, c in self.constants.items() if key.startswith(start)}

    @property
    def assumed(self) -> tuple[str, ...]:
        """Keys of the constants that nobody has measured or published."""
        return tuple(key for key, constant in self.constants.items() if constant.basis == "assumed")

    def with_texts(self, **texts: str) -> Device:
        """The same device with other choices, such as kernels="hale"."""
        return dataclasses.replace(self, texts={**self.texts, **texts})

    def with_constants(self, **constants: Constant) -> Device:
        """The same device with some constants replaced."""
        return dataclasses.replace(self, constants={**self.constants, **constants})


def names() -> list[str]:
    """Names of the shipped device profiles."""
    folder = resources.files("hwmodel") / "devices"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


@cache
def load(name: str) -> Device:
    """A device by the name of a shipped profile, or by the path of a TOML file (a path ends in .toml); "@80MHz" behind
    either chooses its clock.

    Raises HwmodelError, naming the file and the key, for a file that does not fit the schema, and for a clock that the
    device cannot have.
    """
    base, at, clock = name.partition("@")
    if at:
        from hwmodel.operating_point import configured

        found = _CLOCK.fullmatch(clock)
        if found is None:
            raise HwmodelError(f"device {shown(name)}: write the clock behind the @ as 80MHz")
        return dataclasses.replace(configured(load(base), clock_mhz=float(found[1])), name=name)
    if name in ABSENT:
        raise HwmodelError(f"no profile of {name!r}: {ABSENT[name]}")
    if name.endswith(".toml"):
        return parse(_read(Path(name)), Path(name).stem, name)
    if name not in names():
        raise HwmodelError(unknown("device", name, names()))
    entry = resources.files("hwmodel") / "devices" / f"{name}.toml"
    return parse(entry.read_text(encoding="utf-8"), name, f"{name}.toml")


def _read(path: Path) -> str:
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            raise HwmodelError(f"cannot read the device file {path}: not a file of at most {MAX_FILE_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HwmodelError(f"cannot read the device file {path}: {error}") from error


def parse(text: str, name: str, file: str) -> Device:
    """A device from the text of its TOML; `file` is what an error names."""
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise HwmodelError(f"{file}: not a device: values nested too deeply") from None
    except ValueError as error:
        raise HwmodelError(f"{file}: not TOML: {' '.join(str(error).split())[:200]}") from None
    texts: dict[str, str] = {}
    constants: dict[str, Constant] = {}
    for key, value in _flatten(data, "", file):
        if isinstance(value, str):
            texts[key] = value
        else:
            constants[key] = _constant(value, key, file)
    schema = SCHEMAS.get(texts.get("kind", ""))
    if schema is None:
        raise HwmodelError(f"{file}: kind: " + unknown("device kind", texts.get("kind"), SCHEMAS))
    _check(schema, texts, constants, file)
    return Device(name, texts["kind"], texts["title"], texts["basis"], texts, constants)


def _flatten(table: Mapping[str, Any], prefix: str, file: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        path = prefix + key
        if path.count(".") >= MAX_DOTS or len(path) > MAX_KEY:
            raise HwmodelError(f"{file}: key {shown(path)} is too long or too deep")
        if isinstance(value, dict) and "value" not in value:
            yield from _flatten(value, path + ".", file)
        elif isinstance(value, str | dict):
            yield path, value
        else:
            raise HwmodelError(f"{file}: {path}: write {{ value, unit, source, basis }}, not a bare {shown(value)}")


def _constant(row: dict[str, Any], key: str, file: str) -> Constant:
    if sorted(row) != sorted(_FIELDS):
        wrong = sorted(set(row) ^ set(_FIELDS))
        raise HwmodelError(f"{file}: {key}: needs exactly {', '.join(_FIELDS)}; check {shown(wrong[0])}")
    value = row["value"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_VALUE:
        raise HwmodelError(f"{file}: {key}: value {shown(value)} must be a number from 0 to {MAX_VALUE:g}")
    if row["basis"] not in BASES:
        raise HwmodelError(f"{file}: {key}: " + unknown("basis", row["basis"], BASES))
    for name in ("unit", "source"):
        if not isinstance(row[name], str):
            raise HwmodelError(f"{file}: {key}: {name} {shown(row[name])} must be a text")
    if not row["source"].strip():
        raise HwmodelError(f"{file}: {key}: source is empty; say where the value comes from")
    return Constant(float(value), row["unit"], row["source"], row["basis"])


def _check(schema: Schema, texts: Mapping[str, str], constants: Mapping[str, Constant], file: str) -> None:
    required = (*COMMON_TEXTS, *schema.required_texts)
    missing = [key for key in required if key not in texts] + [k for k in schema.required if k not in constants]
    if missing:
        raise HwmodelError(f"{file}: {missing[0]} is missing")
    for key in texts:
        if key not in required and key not in schema.optional_texts:
            raise HwmodelError(f"{file}: " + unknown("key", key, (*required, *schema.optional_texts)))
    for key, lookup in (("core", cores.core), ("kernels", cores.library)):
        if key in texts:
            try:
                lookup(texts[key])
            except HwmodelError as error:
                raise HwmodelError(f"{file}: {key}: {error}") from None
    units = {**schema.optional, **schema.required}
    for key, constant in constants.items():
        patterns = [p for p in units if fnmatchcase(key, p) and key.count(".") == p.count(".")]
        if not patterns:
            raise HwmodelError(f"{file}: " + unknown("key", key, units))
        unit = units[key] if key in units else units[patterns[0]]
        if unit and constant.unit != unit:
            raise HwmodelError(f"{file}: {key}: unit {shown(constant.unit)} must be {unit!r}")
        least = 1.0 if _matches(key, COUNTS) else LEAST_RATE if _matches(key, RATES) else 0.0
        if constant.value < least:
            raise HwmodelError(f"{file}: {key}: value {constant.value:g} must be at least {least:g}")


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)
