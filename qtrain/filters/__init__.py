"""Which instances to train on. A module here with a FILTER (a class with `kind`) is found by itself."""

from qtrain.filters.base import Choice, Filter
from qtrain.filters.instance import start_undecided
from qtrain.filters.keep_all import KeepAll
from qtrain.filters.registry import build, names, purpose

__all__ = ["Choice", "Filter", "KeepAll", "build", "names", "purpose", "start_undecided"]
