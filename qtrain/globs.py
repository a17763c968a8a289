"""Which rules hold for a layer: the one place where layer names meet the globs of [layers."glob"] tables."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

T = TypeVar("T")


def matching(layer: str, rules: Mapping[str, T]) -> list[T]:
    """What `rules` say of the layer of this name, by every glob that matches it (as fnmatch, with case), in their
    order: where two contradict each other the later one wins."""
    return [value for glob, value in rules.items() if fnmatchcase(layer, glob)]
