"""The models, found by listing this folder; importing it does not import torch.

A module of this folder that has a tuple MODELS adds those models; it imports torch inside its builders.
Modules whose name starts with an underscore hold shared torch code and are not looked at.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from hwmodel.errors import unknown
from qtrain.errors import QtrainError
from qtrain.models.model_info import ModelInfo


@cache
def catalog() -> dict[str, ModelInfo]:
    """Every shipped model by name, in alphabetical order."""
    package = importlib.import_module("qtrain.models")
    found: dict[str, ModelInfo] = {}
    for entry in pkgutil.iter_modules(package.__path__):
        if not entry.name.startswith("_"):
            module = importlib.import_module(f"qtrain.models.{entry.name}")
            found |= {info.name: info for info in getattr(module, "MODELS", ())}
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """Names of the shipped models, filter networks included."""
    return tuple(catalog())


def shipped(name: str) -> ModelInfo:
    """The shipped model called `name`; QtrainError suggests the nearest."""
    if name not in catalog():
        own = "; a model of your own is given as package.module:factory"
        raise QtrainError(unknown("model", name, catalog()) + own)
    return catalog()[name]


def default_filter(name: str) -> str:
    """Name of the filter network for a model: at most 10 % of a shipped model's MACs at its native input.

    A user's own model (package.module:factory) gets the smallest one that reads any image of 8x8 or more.
    """
    return "slimmer-lenet" if ":" in name else shipped(name).filter
