"""What is learned from a batch. A module here with a RECIPE (a class with `kind`) is found by itself.

Importing this package does not import torch: its public names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qtrain.recipes.base import Batch, Material, Outcome, Recipe
    from qtrain.recipes.registry import build, check, n_outputs, names

_HOME = dict.fromkeys(("Batch", "Material", "Outcome", "Recipe"), "base") | dict.fromkeys(
    ("build", "check", "n_outputs", "names"), "registry"
)
__all__ = ["Batch", "Material", "Outcome", "Recipe", "build", "check", "n_outputs", "names"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qtrain.recipes' has no attribute {name!r}")
    return getattr(import_module(f"qtrain.recipes.{_HOME[name]}"), name)
