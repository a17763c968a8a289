"""What to tell the user of an experiment before it runs: settings and rules that have no effect, a dear filter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from hwmodel.errors import shown
from qtrain import filters
from qtrain.experiment import Experiment
from qtrain.experiment.options import nearest
from qtrain.experiment.plans import COMPANIONS
from qtrain.globs import matching
from qtrain.layers import QuantizedNetwork

DEAR = 0.1
"""Share of the main network's forward MACs above which a filter network is remarked on: what the shipped models' own
ones keep to (qtrain.models.default_filter). Wu et al. 2020 state 4.1 to 9.5 %."""


def remarks(experiment: Experiment, net: QuantizedNetwork, own: QuantizedNetwork | None) -> list[str]:
    """All lines about an experiment with the main network `net` and the filter's `own`."""
    return [*idle(experiment, net), *unread(experiment), *dear(net, own)]


def unread(experiment: Experiment) -> Iterator[str]:
    """A line naming the settings of [filter] that were changed and have no effect, and what they are for."""
    settings = experiment.filter
    companions = COMPANIONS.get(experiment.numbers.plan, {}).get("filter", {})
    found: dict[str, list[str]] = {}
    for field in dataclasses.fields(settings):
        value, name = getattr(settings, field.name), field.name
        purpose = filters.purpose(settings, name)
        if purpose and value != field.default and value != companions.get(name):
            found.setdefault(purpose, []).append(f"filter.{name}")
    if found:
        told = "; ".join(f"{', '.join(keys)} (for {purpose})" for purpose, keys in found.items())
        yield f"no effect with filter {settings.kind}: {told}"


def dear(net: QuantizedNetwork, own: QuantizedNetwork | None) -> Iterator[str]:
    """A line if the filter's `own` network has more than DEAR of the forward MACs of the main one."""
    if own is not None and own.network.macs > DEAR * net.network.macs:
        yield (
            f"filter network {own.network.name} costs {own.network.macs / net.network.macs:.1%} of a forward pass of "
            f"{net.network.name}, more than {DEAR:.0%}; give a slimmer --filter-network, or --filter none"
        )


def idle(experiment: Experiment, net: QuantizedNetwork) -> Iterator[str]:
    """A line for each [layers."glob"] table that matches no layer of the main network, or whose prune_keep nothing
    reads: because of the pruner, or since it matches no convolution."""
    layers = net.network.layers
    modules = [name for name, _ in net.model.named_modules()]  # those of folded normalizations are layers no more
    convs = [layer.name for layer in layers if layer.kind == "conv"]
    for rule in experiment.layers:
        values, where = dict(rule.values), f"layers.{shown(rule.glob)}"
        names = [layer.name for layer in layers] + (modules if "norm" in values else [])
        if not _matches(rule.glob, names):
            yield f"{where}: matches no layer, and so changes nothing{nearest(rule.glob, names)}"
        elif "prune_keep" in values and not net.pruner.norms:
            yield f"{where}.prune_keep: not read by --prune {experiment.prune.kind}; give --prune channel"
        elif "prune_keep" in values and not _matches(rule.glob, convs):
            yield f"{where}.prune_keep: matches no convolution, and nothing else is pruned; leave it out"


def _matches(glob: str, names: Iterable[str]) -> bool:
    return any(matching(name, {glob: True}) for name in names)
