"""Projected gradient descent on a network's input, its passes charged to payer "inner"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qtrain.formats.fixed import FixedTensor
from qtrain.layers import QuantizedNetwork
from qtrain.layers.inner import InnerPasses
from qtrain.recipes.base import Material

TRAINED_BATCHES = 2
"""Batches of a step whose rounding noise is keyed by other rows than the attack's: the clean and the attacked."""


@dataclass(frozen=True)
class Attack:
    """Projected gradient descent in the L-infinity norm (Madry et al. 2018): `n_steps` steps of the sign of the input's
    error, each of `step` and together within `epsilon` of the clean pixel, between `low` and `high`; all four are
    tensors [C, 1, 1] in the standardized units the network reads. It starts at the clean image."""

    epsilon: Tensor
    step: Tensor
    low: Tensor
    high: Tensor
    n_steps: int

    def __call__(
        self,
        net: QuantizedNetwork,
        inner: InnerPasses,
        images: Tensor,
        error_at: Callable[[FixedTensor], Tensor],
        rows: Tensor,
        n_rows: int,
        start: Tensor | None = None,
    ) -> Tensor:
        """Images [n, C, H, W] changed so that the loss grows whose gradient at the outputs is `error_at` (loss in
        float, its gradient quantized as an error). `rows` of the `n_rows` of the step key the rounding noise; `start`,
        if given, replaces the clean images as the first guess."""
        low = torch.maximum(images - self.epsilon, self.low)
        high = torch.minimum(images + self.epsilon, self.high)
        changed = images if start is None else torch.clamp(start, low, high)
        with inner.within(net):
            for i in range(self.n_steps):
                keys = rows + (TRAINED_BATCHES + i) * n_rows
                outputs, tape = net.run(changed, rows=keys, payer="inner", training=False)
                error = net.logit_error(error_at(outputs), tape)
                slope = net.run_back(tape, error, to_input=True)
                assert slope is not None
                changed = torch.clamp(changed + self.step * slope.sign().to(changed.dtype), low, high)
        return changed


def linf_attack(material: Material, epsilon: float, step_size: float, n_steps: int) -> Attack:
    """The attack on the images of `material`, `epsilon` and `step_size` in pixels of which 255 is 1."""
    return Attack(epsilon * material.deviation, step_size * material.deviation, material.low, material.high, n_steps)
