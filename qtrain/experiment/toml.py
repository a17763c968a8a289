"""TOML of an experiment: a bounded reader (tomllib) and a writer for tables of plain values."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.files import read_bounded

MAX_BYTES = 1 << 20  # a full experiment takes 2 kB; a larger file is not one


def read_text(path: Path) -> str:
    """The text of a TOML file; raises QtrainError unless it is a readable UTF-8 file of at most 1 MiB."""
    try:
        return read_bounded(path, MAX_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise QtrainError(f"{path}: byte {error.start} is not UTF-8 text") from None


def parse_tables(text: str) -> dict[str, Any]:
    """The tables of a TOML text; raises QtrainError naming the line of a syntax error."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise QtrainError("not an experiment: values nested too deeply") from None
    except ValueError as error:
        raise QtrainError(f"not valid TOML: {' '.join(str(error).split())[:200]}") from None


def dump_tables(tables: Mapping[str, Any]) -> str:
    """TOML text of nested mappings of bool, int, float, str and lists of them.

    A table's values come before its subtables; the order within each is kept. Floats read back exactly.
    """
    lines: list[str] = []
    _dump(tables, "", lines)
    return "\n".join(lines).lstrip("\n") + "\n"


def _dump(table: Mapping[str, Any], path: str, lines: list[str]) -> None:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if path and (values or not table):
        lines += ["", f"[{path}]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            _dump(value, f"{path}.{_key(key)}" if path else _key(key), lines)


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key)
    return key if bare else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # a JSON string without escapes beyond ASCII is a TOML basic string: control characters never get here
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return repr(value)
