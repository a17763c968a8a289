"""The filters, found by listing this folder: every module with a FILTER adds one."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Any

from hwmodel.errors import unknown
from qtrain.errors import QtrainError
from qtrain.filters.base import Filter
from qtrain.filters.keep_all import KeepAll

SHARES = ("rate", "keep")
"""Settings that mean "keep all" at 1."""


@cache
def catalog() -> dict[str, Callable[..., Filter]]:
    """Every filter's class by its kind, in alphabetical order."""
    package = importlib.import_module("qtrain.filters")
    found: dict[str, Callable[..., Filter]] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"qtrain.filters.{entry.name}")
        if hasattr(module, "FILTER"):
            found[module.FILTER.kind] = module.FILTER
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """Kinds of the filters."""
    return tuple(catalog())


def needs_network(settings: Any) -> bool:
    """Whether `build` wants a filter network and its optimizer for these settings."""
    return "network" in _parameters(_class(settings))


def build(
    settings: Any,
    seed: int = 0,
    network: Any = None,
    optimizer: Any = None,
    warn: Callable[[str], None] | None = None,
) -> Filter:
    """The filter of `settings`, a dataclass with the fields `kind` and whatever the kind's constructor names.

    A constructor's parameters are settings of the same name, besides `seed`, `network` (a QuantizedNetwork with two
    outputs), its `optimizer`, and `warn`, called with one line when the filter finds itself useless. Raises
    QtrainError for an unknown kind.
    """
    made = _class(settings)
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    given |= {"seed": seed, "network": network, "optimizer": optimizer, "warn": warn}
    return made(**{name: given[name] for name in _parameters(made) if name in given})


def _class(settings: Any) -> Callable[..., Filter]:
    if settings.kind not in catalog():
        raise QtrainError(unknown("filter", settings.kind, catalog()))
    made = catalog()[settings.kind]
    full = any(name in SHARES and getattr(settings, name) >= 1 for name in _parameters(made))
    return KeepAll if full else made


def _parameters(made: Callable[..., Filter]) -> list[str]:
    return list(inspect.signature(made).parameters)
