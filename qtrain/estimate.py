"""Bills from shapes alone: one training step or one inference of a model, without training it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwmodel import devices, network, pricing, schedule
from hwmodel.operations import Widths
from qtrain.errors import QtrainError


def estimate_bills(
    model: str,
    names: Sequence[str],
    bits: int = 8,
    batch_size: int = 1,
    inference: bool = False,
    filter_rate: float = 1.0,
    uncertain_rate: float = 0.0,
    prune_keep: float = 1.0,
    momentum: float = 0.9,
    layers: str = "all",
    bias_only: str = "",
    fused_update: bool = False,
    kernels: str | None = None,
    clock_mhz: float | None = None,
    input_shape: str | None = None,
    norm: str = "batch",
) -> list[dict[str, Any]]:
    """The bill of one step (or inference) of `model` on each device.

    `filter_rate` and `uncertain_rate` are the shares of the batch kept and forwarded for their loss; below 1 the
    model's default filter network is priced with them, but not what a rule sorts to choose by: that follows from the
    stream. Raises QtrainError or HwmodelError naming cause and cure.
    """
    net = shapes(model, input_shape).normalized_by(lambda _: norm)
    widths = Widths.uniform(bits)
    if inference:
        trace = schedule.inference(net, widths, batch_size)
        plan = schedule.Schedule(net.folded(), widths, frozen=frozenset(la.name for la in net.layers))
        return [_bill(trace, plan, None, name, "inference", batch_size, kernels, clock_mhz) for name in names]
    chosen = net.choose_trained(layers, bias_only)
    if chosen.channels and prune_keep < 1:
        raise QtrainError(
            "a share of the channels (--train GLOB:SHARE) and --prune-keep exclude each other; leave out one"
        )
    plan = schedule.Schedule(
        net, widths, frozen=chosen.frozen, bias_only=chosen.bias_only, trained_channels=chosen.channels,
        momentum=momentum > 0, fused_update=fused_update, prune_keep=prune_keep,
    )  # fmt: skip
    n_kept, n_uncertain = round(filter_rate * batch_size), round(uncertain_rate * batch_size)
    if n_kept + n_uncertain > batch_size:
        raise QtrainError(f"--filter-rate {filter_rate:g} and --uncertain-rate {uncertain_rate:g} sum to more than 1")
    filter_plan = None
    if filter_rate < 1:
        from qtrain.models.catalog import default_filter

        filter_plan = schedule.Schedule(_filter_shapes(default_filter(model), net), widths, momentum=momentum > 0)
    trace = schedule.filtered_step(plan, batch_size, n_kept, n_uncertain, filter_plan)
    return [_bill(trace, plan, filter_plan, name, "step", max(n_kept, 1), kernels, clock_mhz) for name in names]


def _bill(
    trace: Any, plan: Any, filter_plan: Any, name: str, scope: str, batch: int, kernels: str | None, clock: float | None
) -> dict[str, Any]:
    return pricing.price(
        trace, devices.load(name), schedule=plan, filter_schedule=filter_plan, batch=batch, scope=scope,
        kernels=kernels, clock_mhz=clock,
    ).to_json()  # fmt: skip


def shapes(model: str, input_shape: str | None = None) -> network.Network:
    """The layers of a shipped model (no torch) or of the user's own, traced on torch's meta device."""
    if ":" not in model and input_shape is None:
        return network.load(model)
    from qtrain.models.shapes import traced

    return traced(model, input_shape)


def _filter_shapes(name: str, main: network.Network) -> network.Network:
    first = main.layers[0]
    own = network.load(name)
    if own.layers[0].n_in == first.n_in:
        return own
    return shapes(name, f"{first.in_channels},{first.in_height},{first.in_width}")
