"""Exchanging a model's batch normalizations: the same weights and statistics in another module, or folded away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hwmodel.normalization import n_groups
from qtrain.layers.graph import trace
from qtrain.layers.norms.modules import FrozenNorm, RangeNorm

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def exchange(model: nn.Module, input_shape: tuple[int, ...], choose: Callable[[str], str], name: str = "model") -> None:
    """Make each batch normalization of `model` what `choose` says of its layer's name (hwmodel.normalization.NORMS).

    Range, frozen and folded ones compute what the model computed at inference; a group normalization keeps scale and
    shift alone. Folding needs a convolution or linear layer whose output nothing else reads, and both used once.
    Raises QtrainError where the model can't be traced.
    """
    steps, _ = trace(model, input_shape, name)
    uses = Counter(id(step.module) for step in steps)
    producers = {step.layer.name: step for step in steps}
    for step in steps:
        norm = step.module
        if step.layer.kind != "batchnorm" or not isinstance(norm, BatchNorm) or "@" in step.layer.name:
            continue
        choice, before = choose(step.layer.name), producers[step.layer.inputs[0]]
        once = uses[id(norm)] == uses[id(before.module)] == 1
        made: nn.Module = norm
        if choice == "folded" and once and before.layer.normalized and type(before.module) in (nn.Conv2d, nn.Linear):
            fold(before.module, norm)
            made = nn.Identity()
        elif choice in ("frozen", "folded"):
            made = frozen(norm)
        elif choice == "range":
            made = ranged(norm)
        elif choice == "group":
            made = grouped(norm)
        parent, _, leaf = step.layer.name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, made)


def fold(before: Any, norm: Any) -> None:
    """Multiply `norm`'s inference into the weights and bias of a Conv2d or Linear (Jacob et al. 2018, section 3.2)."""
    with torch.no_grad():
        gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        offset = norm.bias - norm.running_mean * gain
        before.weight.mul_(gain.view(-1, *([1] * (before.weight.dim() - 1))))
        bias = offset if before.bias is None else offset + gain * before.bias
        before.bias = nn.Parameter(bias.clone())


def frozen(norm: Any) -> FrozenNorm:
    """By the running statistics `norm` has."""
    made = FrozenNorm(norm.num_features, norm.eps, norm.momentum).to(norm.weight.device)
    made.load_state_dict(norm.state_dict())
    return made


def ranged(norm: Any) -> RangeNorm:
    """By the range, about two deviations of a Gaussian: twice the scale gives the same outputs."""
    made = RangeNorm(norm.num_features, norm.eps, norm.momentum).to(norm.weight.device)
    with torch.no_grad():
        made.weight.copy_(2 * norm.weight)
        made.bias.copy_(norm.bias)
        made.running_mean.copy_(norm.running_mean)
        made.running_scale.copy_(2 * torch.sqrt(norm.running_var + norm.eps) - norm.eps)
    return made


def grouped(norm: BatchNorm) -> nn.GroupNorm:
    """By each instance's groups of about 16 channels."""
    made = nn.GroupNorm(n_groups(norm.num_features), norm.num_features, norm.eps).to(norm.weight.device)
    with torch.no_grad():
        made.weight.copy_(norm.weight)
        made.bias.copy_(norm.bias)
    return made
