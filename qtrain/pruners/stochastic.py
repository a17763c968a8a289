"""Activation-gradient pruning: small elements of an error map become zero or the threshold, without bias.

Ye et al. 2020, "Accelerating CNN Training by Pruning Activation Gradients", arXiv 1908.00173 (ECCV 2020).
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.formats.noise import NOISE_BITS, Stream, noise
from qtrain.pruners.base import Pruned

if TYPE_CHECKING:
    from qtrain.layers.tape import Tape


class StochasticGradientPruning:
    """With the elements g of a conv layer's error map taken as N(0, sigma^2), sigma = sqrt(pi/2) mean|g|, a share
    `rate` lies below tau = Phi^-1((1 + rate) / 2) sigma. |g| < tau becomes sign(g) tau with probability |g| / tau,
    else 0, so that its expectation stays g; the others are left alone. The density left is measured: it is more than
    1 - rate.

    tau is predicted: the mean of the last `window` mini-batches' thresholds, so that no second pass is needed; until
    there are so many nothing is pruned. Where the error holds the batch mean's 1/n (float32), thresholds are remembered
    times n: the next mini-batch may be of another size. In fixed point tau is rounded to the error's grid (its
    expectation does not depend on tau), and never above the largest element.

    Where: a conv followed by a normalization prunes the dense error that the normalization hands it. Any other should
    prune what the next conv hands down; masks and pools in between move or zero single elements, so pruning the
    non-zero ones on arrival is the same, and sigma is taken from the non-zero elements alone.
    """

    kind: ClassVar[str] = "stochastic"
    thins: ClassVar[bool] = True
    norms: ClassVar[tuple[str, ...]] = ()

    def __init__(self, rate: float = 0.9, window: int = 4) -> None:
        self.sigmas = NormalDist().inv_cdf((1 + rate) / 2)  # tau in units of sigma
        self.window = window
        self.thresholds: dict[str, deque[float]] = {}

    def prune(self, error: FixedTensor, weight: Tensor, layer: Layer, tape: Tape) -> Pruned:
        thinned = self.thin(error, layer, tape)
        return Pruned(thinned, None, density(thinned) if layer.kind == "conv" else 1.0)

    def thin(self, error: FixedTensor, layer: Layer, tape: Tape) -> Tensor:
        """The error map [n, K, H, W] after pruning by the predicted threshold, in the same unit and shape (the very
        error of a layer that is no conv, or while nothing is pruned); its own threshold then enters the prediction."""
        g = error.values
        if layer.kind != "conv" or not g.numel():
            return g
        magnitude = g.abs()
        known = self.thresholds.setdefault(layer.name, deque(maxlen=self.window))
        n = _n_averaged(g, tape)
        predicted = sum(known) / len(known) / n if len(known) == self.window else 0.0
        known.append(self.threshold(magnitude, layer) * n)
        tau = min(on_grid(predicted, error.exponent), float(magnitude.max()))
        if not tau:
            return g
        stream = Stream(tape.clock.seed, tape.clock.step, zlib.crc32(f"{layer.name}.prune".encode()), tape.rows)
        raised = noise(g.shape, stream, g) < magnitude * (2.0**NOISE_BITS / tau)
        return torch.where(magnitude < tau, torch.sign(g) * tau * raised, g)

    def threshold(self, magnitude: Tensor, layer: Layer) -> float:
        """tau of this mini-batch in the unit of the error, from the mean of magnitude [n, K, H, W] = |error|: over all
        elements of a dense error, which only a normalization hands down, else over the non-zero ones."""
        total = float(magnitude.sum(dtype=torch.float64))
        dense = layer.normalized and layer.activation == "none"
        n = magnitude.numel() if dense else int(magnitude.count_nonzero())
        return self.sigmas * math.sqrt(math.pi / 2) * total / max(n, 1)

    def keeps(self, layer: Layer) -> float:
        """Whole channels are not skipped."""
        return 1.0

    def state(self) -> dict[str, Any]:
        return {"thresholds": {name: list(known) for name, known in self.thresholds.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.thresholds = {name: deque(known, self.window) for name, known in state["thresholds"].items()}


def _n_averaged(error: Tensor, tape: Tape) -> int:
    """The n of the 1/n that an error [n, ...] holds; 1 where it holds none."""
    if not tape.averaged:
        return 1
    return len(error) if tape.narrowed is None else len(tape.narrowed)


def on_grid(tau: float, exponent: int | None) -> float:
    """`tau` rounded to a code x 2^exponent; float32 (None) has no grid."""
    if exponent is None:
        return tau
    return math.ldexp(round(math.ldexp(tau, -exponent)), exponent)


def density(error: Tensor) -> float:
    """Share of elements that are not zero; 1.0 of none."""
    return int(error.count_nonzero()) / error.numel() if error.numel() else 1.0


PRUNER = StochasticGradientPruning
