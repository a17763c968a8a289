"""The recipes, found by listing this folder: every module with a RECIPE adds one."""

from __future__ import annotations

import dataclasses
from typing import Any

from hwmodel.errors import unknown
from qtrain.discovery import construct, discover
from qtrain.errors import QtrainError
from qtrain.recipes.base import Material, Recipe

LOSS_FILTERS = ("instance", "ohem", "selective-backprop")
"""Filters that choose by the losses of single instances."""
SUPERVISED = "supervised"


def names() -> tuple[str, ...]:
    """Kinds of the recipes."""
    return tuple(discover("qtrain.recipes", "RECIPE"))


def n_outputs(experiment: Any, n_classes: int) -> int:
    """Outputs the network of `experiment` must have to learn `n_classes` by its recipe."""
    return int(_made(experiment).n_outputs(_settings(experiment), n_classes))


def needs_labels(experiment: Any) -> bool:
    """Whether the recipe learns from the label of each streamed instance."""
    return bool(_made(experiment).needs_labels)


def check(experiment: Any, task: str) -> None:
    """Raise QtrainError where recipe, filter, data and the model's task don't go together."""
    made, kind = _made(experiment), experiment.recipe
    if task == "reconstruct" and kind != SUPERVISED:
        raise QtrainError(f"recipe {kind} needs a network with classes, {experiment.model} reconstructs its input")
    if not made.instance_losses and experiment.filter.kind in LOSS_FILTERS:
        raise QtrainError(
            f"filter {experiment.filter.kind} chooses by the losses of single instances, which recipe {kind} does not "
            "have; give --filter none, smb, smd or random"
        )


def build(experiment: Any, material: Material) -> Recipe:
    """The recipe of `experiment`: its constructor is called with the settings of the section of its name that it
    names, and `material`. Raises QtrainError for an unknown recipe."""
    settings = _settings(experiment)
    fields = dataclasses.fields(settings) if settings is not None else ()
    given = {field.name: getattr(settings, field.name) for field in fields}
    recipe: Recipe = construct(_made(experiment), given | {"material": material})
    return recipe


def _made(experiment: Any) -> Any:
    kinds = discover("qtrain.recipes", "RECIPE")
    if experiment.recipe not in kinds:
        raise QtrainError(unknown("recipe", experiment.recipe, kinds))
    return kinds[experiment.recipe]


def _settings(experiment: Any) -> Any:
    return getattr(experiment, experiment.recipe.replace("-", "_"), None)
