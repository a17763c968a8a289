"""Which part of an error map to keep. A module here with a PRUNER (a class with `kind`) is found by itself."""

from qtrain.pruners.base import NoPruning, Pruned, Pruner
from qtrain.pruners.registry import build, names

__all__ = ["NoPruning", "Pruned", "Pruner", "build", "names"]
