"""The proof: training steps in the simulator and on integers alone, compared element by element."""

from qtrain.verification.steps import Sgd, verify, verify_module

__all__ = ["Sgd", "verify", "verify_module"]
