"""The filters, found by listing this folder: every module with a FILTER adds one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from hwmodel.errors import unknown
from qtrain.discovery import construct, discover, parameters
from qtrain.errors import QtrainError
from qtrain.filters.base import Filter
from qtrain.filters.keep_all import KeepAll

SHARES = ("rate", "keep")
"""Settings that mean "keep all" at 1."""


def names() -> tuple[str, ...]:
    """Kinds of the filters."""
    return tuple(discover("qtrain.filters", "FILTER"))


def build(
    experiment: Any,
    network: Callable[[], tuple[Any, Any]] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Filter:
    """The filter of `experiment` (its `seed`, and its section `filter`).

    A filter's constructor is called with the settings it names, besides `seed`, `network` and `optimizer` (made by
    calling `network`, for the filters that name them) and `warn`, which is told in one line when the filter finds
    itself useless. Raises QtrainError for an unknown kind.
    """
    settings = experiment.filter
    kinds = discover("qtrain.filters", "FILTER")
    if settings.kind not in kinds:
        raise QtrainError(unknown("filter", settings.kind, kinds))
    made = kinds[settings.kind]
    if any(name in SHARES and getattr(settings, name) >= 1 for name in parameters(made)):
        made = KeepAll
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    given |= {"seed": experiment.seed, "warn": warn}
    if "network" in parameters(made):
        if network is None:
            raise QtrainError(f"filter {settings.kind} trains a network of its own; give a factory for it")
        given["network"], given["optimizer"] = network()
    return construct(made, given)
