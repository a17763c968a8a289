"""The learning rate over a run."""

from __future__ import annotations

import math

from qtrain.experiment.methods import Filter
from qtrain.experiment.sections import Optimizer

STEP_FACTOR = 0.1
"""What schedule `step` multiplies at every milestone (Wu et al. 2020: x 0.1 at 32k and 48k)."""
FILTER_STEP_FACTOR = 0.5
"""The same for the filter network (Wu et al. 2020, MNIST: 0.1, then 0.05 after 940 steps)."""


def learning_rate(settings: Optimizer | Filter, step: int, n_steps: int) -> float:
    """Rate of `step` (0 .. n_steps - 1): constant; half a cosine from the full rate towards 0 (Loshchilov and Hutter
    2017, without restarts); or divided by ten (a filter network's by two) at each milestone passed."""
    if settings.schedule == "cosine":
        return settings.lr * 0.5 * (1.0 + math.cos(math.pi * step / n_steps))
    if settings.schedule == "step":
        factor = STEP_FACTOR if isinstance(settings, Optimizer) else FILTER_STEP_FACTOR
        return settings.lr * factor ** sum(step >= milestone for milestone in settings.milestones)
    return settings.lr
