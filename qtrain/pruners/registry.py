"""The pruners, found by listing this folder: every module with a PRUNER adds one."""

from __future__ import annotations

import dataclasses
from typing import Any

from hwmodel.errors import unknown
from qtrain.discovery import construct, discover
from qtrain.errors import QtrainError
from qtrain.pruners.base import Pruner


def names() -> tuple[str, ...]:
    """Kinds of the pruners."""
    return tuple(discover("qtrain.pruners", "PRUNER"))


def build(experiment: Any) -> Pruner:
    """The pruner of `experiment` (its section `prune`, and the prune_keep of its layer rules).

    A pruner's constructor is called with the settings it names, and `layers`: keep ratios by glob of layer names.
    Raises QtrainError for an unknown kind.
    """
    settings = experiment.prune
    kinds = discover("qtrain.pruners", "PRUNER")
    if settings.kind not in kinds:
        raise QtrainError(unknown("pruner", settings.kind, kinds))
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    rules = {rule.glob: dict(rule.values) for rule in experiment.layers}
    given["layers"] = {glob: values["prune_keep"] for glob, values in rules.items() if "prune_keep" in values}
    return construct(kinds[settings.kind], given)
