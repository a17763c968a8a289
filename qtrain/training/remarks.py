"""What an experiment's filter leaves unsaid: settings that have no effect, and a filter network that costs too much."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from qtrain import filters
from qtrain.experiment import Experiment
from qtrain.experiment.plans import COMPANIONS
from qtrain.layers import QuantizedNetwork

DEAR = 0.1
"""Share of the main network's forward MACs above which a filter network is remarked on: what the shipped models' own
ones keep to (qtrain.models.default_filter). Wu et al. 2020 state 4.1 to 9.5 %."""


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
