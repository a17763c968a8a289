"""What is learned from a batch."""

from qtrain.recipes.base import Batch, Outcome, Recipe
from qtrain.recipes.supervised import Supervised

__all__ = ["Batch", "Outcome", "Recipe", "Supervised"]
