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
NETWORK = ("network", "lr", "momentum", "schedule", "milestones")
"""Settings of a filter's own network."""
WHOLE = ("none", "smb", "smd")
"""Filters that train on all of a mini-batch or on none of it, so that `mean_over` divides by the same number."""
PAPERS = "filter.steer true-high or kept"
CONDITIONS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "alpha_up": (lambda s: s.steer != "quantile" and s.adaptive, f"{PAPERS}, with filter.adaptive"),
    "alpha_down": (lambda s: s.steer != "quantile" and s.adaptive, f"{PAPERS}, with filter.adaptive"),
    "threshold": (lambda s: s.steer != "quantile" or not s.adaptive, f"{PAPERS}, or without filter.adaptive"),
    "uncertainty": (lambda s: s.steer != "quantile", PAPERS),
    "entropy_threshold": (lambda s: s.steer != "quantile" and s.uncertainty, f"{PAPERS}, with filter.uncertainty"),
    "milestones": (lambda s: s.schedule == "step", "filter.schedule step"),
}
"""When a setting of the instance filter has an effect: of the settings, and in words."""


def names() -> tuple[str, ...]:
    """Kinds of the filters."""
    return tuple(discover("qtrain.filters", "FILTER"))


def reads(kind: str) -> frozenset[str]:
    """Settings of [filter] that the filter `kind` knows: its constructor's, its network's, and the loss's divisor."""
    named = parameters(discover("qtrain.filters", "FILTER")[kind])
    return frozenset([*named, *(NETWORK if "network" in named else ()), *(() if kind in WHOLE else ("mean_over",))])


def purpose(settings: Any, name: str) -> str:
    """What the setting `name` of [filter] is for, where it has no effect with these settings; empty where it has."""
    if name == "kind":
        return ""
    if name not in reads(settings.kind):
        return "filter " + " or ".join(kind for kind in names() if name in reads(kind))
    holds, words = CONDITIONS.get(name, (lambda _: True, ""))
    return "" if holds(settings) else words


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
