"""Finding the modules that add something to a room, and building what they add from settings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any


@cache
def discover(package: str, attribute: str) -> dict[str, Any]:
    """The classes that modules of `package` offer as `attribute`, by their `kind`, in alphabetical order."""
    path = importlib.import_module(package).__path__
    modules = [importlib.import_module(f"{package}.{entry.name}") for entry in pkgutil.iter_modules(path)]
    classes = [getattr(module, attribute) for module in modules if hasattr(module, attribute)]
    return {made.kind: made for made in sorted(classes, key=lambda made: made.kind)}


def parameters(made: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the parameters that a class is built with."""
    return tuple(inspect.signature(made).parameters)


def construct(made: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """`made` built with those of the values `given` that it names."""
    return made(**{name: given[name] for name in parameters(made) if name in given})
