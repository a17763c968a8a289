"""What identifies a result: the options that can change it, and the code that computes it."""

import dataclasses
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

# The rooms whose code decides what a run computes; reports, prices and the command line do not.
ROOMS = ("data", "experiment", "filters", "formats", "globs", "layers", "models", "pruners", "recipes", "training")


@cache
def code_version() -> str:
    """12 hexadecimal digits over the source files that decide a run's result, the same wherever they lie."""
    package = Path(__file__).parent.parent
    files = [f for room in ROOMS for f in [package / f"{room}.py", *(package / room).rglob("*")]]
    total = hashlib.sha256()
    for file in sorted(files):
        if file.suffix in (".py", ".cpp") and file.is_file():
            total.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()[:12]


def digest(experiment: Any, code: str = "") -> str:
    """16 hexadecimal digits of the canonical JSON of the keys that can change the result, and of `code`."""
    keys = {"experiment": _result_keys(experiment), "code": code}
    canonical = json.dumps(keys, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _result_keys(section: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            keys[field.name] = _result_keys(value)
        elif field.name == "layers" and isinstance(value, tuple):
            # a list, not a mapping: where two rules match a layer the later one wins
            keys[field.name] = [[rule.glob, dict(rule.values)] for rule in value]
        elif field.metadata["result"]:
            keys[field.name] = value
    return keys
