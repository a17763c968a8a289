"""Rules for single layers that change nothing."""

from __future__ import annotations

from collections.abc import Iterable

from hwmodel.errors import shown
from qtrain.experiment import Experiment
from qtrain.experiment.options import nearest
from qtrain.globs import matching
from qtrain.layers import QuantizedNetwork


def idle(experiment: Experiment, net: QuantizedNetwork) -> list[str]:
    """A line for each [layers."glob"] table that matches no layer of the main network, or whose prune_keep nothing
    reads: because of the pruner, or since it matches no convolution."""
    layers = net.network.layers
    modules = [name for name, _ in net.model.named_modules()]  # those of folded normalizations are layers no more
    convs = [layer.name for layer in net.network.layers if layer.kind == "conv"]
    lines = []
    for rule in experiment.layers:
        values, where = dict(rule.values), f"layers.{shown(rule.glob)}"
        names = [layer.name for layer in layers] + (modules if "norm" in values else [])
        if not _matches(rule.glob, names):
            lines.append(f"{where}: matches no layer, and so changes nothing{nearest(rule.glob, names)}")
        elif "prune_keep" in values and not net.pruner.norms:
            lines.append(f"{where}.prune_keep: not read by --prune {experiment.prune.kind}; give --prune channel")
        elif "prune_keep" in values and not _matches(rule.glob, convs):
            lines.append(f"{where}.prune_keep: matches no convolution, and nothing else is pruned; leave it out")
    return lines


def _matches(glob: str, names: Iterable[str]) -> bool:
    return any(matching(name, {glob: True}) for name in names)
