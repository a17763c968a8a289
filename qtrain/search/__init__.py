"""Search under hard limits: optuna proposes settings, the engine trains them, one is recommended and checked."""

from qtrain.search.answer import Found, search
from qtrain.search.space import Space

__all__ = ["Found", "Space", "search"]
