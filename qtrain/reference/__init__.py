"""One training step on integers alone, in NumPy, written from ARITHMETIC.md: what the simulator is held against."""

from qtrain.reference.engine import Engine
from qtrain.reference.layout import Node

__all__ = ["Engine", "Node"]
