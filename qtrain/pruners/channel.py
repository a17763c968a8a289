"""Error-map pruning by channels: the least important output channels are left out of a layer's backward pass.

Wu, Wang, Shi, Hu 2020, arXiv 2007.03213, section III-C.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from hwmodel.operations import Layer
from hwmodel.schedule import kept_channels, selection_groups
from qtrain.formats.fixed import FixedTensor
from qtrain.globs import matching
from qtrain.pruners.base import Pruned

if TYPE_CHECKING:
    from qtrain.layers.tape import Tape


class ChannelPruning:
    """Keeps the n' most important channels of a conv layer's error map, the same for the whole mini-batch, anew each
    mini-batch; the others are skipped in the input error (8) and in the weight and bias gradients (12).

    Importance (11): s_j = gamma_weight ||W_j||_1 + gamma_error sum_i ||delta_j^i||_1, each norm divided by its mean
    over the channels (not stated by the paper; without it a mean loss makes the error's term vanish beside the
    weights'). n' = max(1, round(keep n)); of equal channels the first. A grouped layer keeps equally many in every
    group, a depthwise one is a single group. `layers` maps globs of layer names to their own keep ratios, the last
    match wins.
    """

    kind: ClassVar[str] = "channel"
    thins: ClassVar[bool] = False

    def __init__(
        self,
        keep: float = 0.6,
        gamma_weight: float = 0.0,
        gamma_error: float = 1.0,
        layers: Mapping[str, float] | None = None,
    ) -> None:
        self.keep, self.gamma_weight, self.gamma_error = keep, gamma_weight, gamma_error
        self.norms = tuple(name for name, gamma in (("error", gamma_error), ("weight", gamma_weight)) if gamma)
        self.layers = dict(layers or {})
        self.ever_kept: dict[str, list[bool]] = {}

    def prune(self, error: FixedTensor, weight: Tensor, layer: Layer, tape: Tape) -> Pruned:
        return Pruned(error.values, self.choose(error.values, weight, layer))

    def choose(self, error: Tensor, weight: Tensor, layer: Layer) -> Tensor | None:
        """Channels that take part, int64 [K'] ascending; None where all K do. Those kept are noted for `never_kept`.

        error [n, K, H, W] of the layer's output, past the activation's mask, and weight [K, C / groups, FY, FX]; the
        unit of neither matters.
        """
        n_kept = kept_channels(layer, self.keeps(layer))
        if n_kept == layer.out_channels:
            return None
        n_groups = selection_groups(layer)
        scores = self.importance(error, weight).tolist()
        size = len(scores) // n_groups
        kept: list[int] = []
        for first in range(0, len(scores), size):  # sorting is stable: of equal channels the first
            best = sorted(range(first, first + size), key=scores.__getitem__, reverse=True)
            kept += sorted(best[: n_kept // n_groups])
        seen = self.ever_kept.setdefault(layer.name, [False] * layer.out_channels)
        for channel in kept:
            seen[channel] = True
        return torch.tensor(kept, device=error.device)

    def importance(self, error: Tensor, weight: Tensor) -> Tensor:
        """s_j of every channel, float64 [K]. A row's sum over pixels is exact in fixed point, so that ties are ties."""
        total = torch.zeros(weight.shape[0], dtype=torch.float64, device=weight.device)
        if self.gamma_weight:
            total += self.gamma_weight * _share(weight.abs().flatten(1).sum(1).double())
        if self.gamma_error:
            per_instance = error.abs().sum((2, 3))
            total += self.gamma_error * _share(per_instance.double().sum(0))
        return total

    def keeps(self, layer: Layer) -> float:
        """Keep ratio of `layer`; only conv layers are pruned."""
        if layer.kind != "conv":
            return 1.0
        return [self.keep, *matching(layer.name, self.layers)][-1]

    def never_kept(self) -> dict[str, float]:
        """Share of each pruned layer's channels that no mini-batch has kept so far."""
        return {name: 1 - sum(seen) / len(seen) for name, seen in self.ever_kept.items()}

    def state(self) -> dict[str, Any]:
        return {"ever_kept": {name: [int(one) for one in seen] for name, seen in self.ever_kept.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.ever_kept = {name: [bool(one) for one in seen] for name, seen in state["ever_kept"].items()}


def _share(norms: Tensor) -> Tensor:
    """Norms [K] over their mean; all zero where they are."""
    mean = norms.mean()
    return norms / mean if mean > 0 else norms


PRUNER = ChannelPruning
