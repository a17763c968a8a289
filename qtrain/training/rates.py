"""The learning rate over a run."""

from __future__ import annotations

import math

from qtrain.experiment.sections import Optimizer

STEP_FACTOR = 0.1
"""What schedule `step` multiplies at every milestone (Wu et al. 2020: x 0.1 at 32k and 48k)."""


def learning_rate(settings: Optimizer, step: int, n_steps: int) -> float:
    """Rate of `step` (0 .. n_steps - 1): constant; half a cosine from the full rate towards 0 (Loshchilov and Hutter
    2017, without restarts); or divided by ten at each milestone passed."""
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1.0 + math.cos(math.pi * step / n_steps))
    if settings.schedule == "step":
        return settings.lr * STEP_FACTOR ** sum(step >= milestone for milestone in settings.milestones)
    return settings.lr
