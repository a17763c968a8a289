"""From a network's shapes to the Ops of a training step or an inference.

The simulator's layers and the estimator both build their Ops here, so an estimate and a recorded step agree by
construction. A step is: forward; loss; backward in reverse order (no error pass below the first trained layer); update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hwmodel import records
from hwmodel.errors import HwmodelError, unknown
from hwmodel.network import Network
from hwmodel.operations import PRUNING, Layer, Op, Widths
from hwmodel.trace import Trace, read_widths


def selection_groups(layer: Layer) -> int:
    """Groups of output channels among which pruning chooses. A grouped layer's groups must stay equal; a depthwise
    layer's channels share nothing, so that it is one group."""
    return 1 if layer.groups == layer.in_channels else layer.groups


def kept_channels(layer: Layer, keep: float) -> int:
    """Output channels an error map keeps at keep ratio alpha: all of a layer that is no convolution, else
    n' = max(1, round(alpha n)) (Wu et al. 2020, III-C) in every group of n to choose among."""
    if layer.kind != "conv":
        return layer.out_channels
    n_groups = selection_groups(layer)
    return n_groups * max(1, round(keep * (layer.out_channels // n_groups)))


@dataclass(frozen=True)
class Schedule:
    """How one network is trained: numbers, trained layers, optimizer terms and channel pruning.

    `layer_widths` and `layer_keep` override the widths and the keep ratio of single layers by name; `bias_only` names
    trained layers whose weights stay frozen, `trained_channels` layers of which the first output channels alone learn
    (Lin et al. 2022, On-Device Training Under 256KB Memory: sparse tensor update). `fused_update` applies each layer's
    update inside the backward pass, so that one layer's gradient is alive at a time. `extra_ram_bytes` names what the
    way of learning holds throughout: buffers of instances, moving targets, averaged weights. `importance`: the norms
    that a channel is chosen by, of "error" and "weight". `thinned`: single elements of every convolution's error map
    are pruned, which looks at all of them.
    """

    network: Network
    widths: Widths
    layer_widths: Mapping[str, Widths] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    bias_only: frozenset[str] = frozenset()
    trained_channels: Mapping[str, int] = field(default_factory=dict)
    momentum: bool = False
    weight_decay: bool = False
    fused_update: bool = False
    prune_keep: float = 1.0
    layer_keep: Mapping[str, float] = field(default_factory=dict)
    importance: tuple[str, ...] = ("error",)
    thinned: bool = False
    extra_ram_bytes: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def trained(self) -> frozenset[str]:
        """Names of the layers that have parameters and are not frozen."""
        return frozenset(la.name for la in self.network.layers if la.n_parameters and la.name not in self.frozen)

    def trains(self, name: str) -> str:
        """Which parameters of the layer `name` learn: all, bias or none."""
        if name not in self.trained:
            return "none"
        return "bias" if name in self.bias_only else "all"

    @property
    def update_terms(self) -> int:
        """Multiply-accumulates per parameter of an update."""
        return 1 + self.momentum + self.weight_decay

    def op(self, layer: Layer, phase: str, batch: int, payer: str = "main", kept: int | None = None) -> Op:
        """The Op of one pass of `layer` over `batch` instances, `kept` of its output channels left by pruning."""
        trains = self.trains(layer.name)
        chosen = self.trained_channels.get(layer.name, 0) if trains == "all" else 0
        kept = layer.out_channels if kept is None else kept
        terms = {"update": self.update_terms, "select": int("weight" in self.importance)}
        instances = phase != "update" and (phase != "select" or "error" in self.importance)
        return Op(
            layer=layer,
            widths=self.layer_widths.get(layer.name, self.widths),
            phase=phase,
            payer=payer,
            batch=batch if instances else 0,
            kept_channels=min(kept, chosen) if chosen and phase == "gradient" else kept,
            trains=trains,
            parameter_terms=terms.get(phase, 0),
            trained_channels=chosen,
        )

    def forward(self, batch: int, payer: str = "main") -> Iterator[Op]:
        """Ops of a forward pass, the loss included (an uncertain instance's loss is what its pass is for)."""
        for layer in self.network.layers:
            if layer.kind != "fork":
                yield self.op(layer, "forward", batch, payer)

    def backward(self, batch: int, payer: str = "main") -> Iterator[Op]:
        """Ops of the backward pass in order of execution: per layer pruning, gradient, error."""
        needed = self.network.needs_error(self.trained)
        for layer in reversed(self.network.layers):
            if layer.name not in needed:
                continue
            kept = self.kept(layer)
            for phase in self.prunes(layer):
                yield self.op(layer, phase, batch, payer)
            if layer.name in self.trained:
                yield self.op(layer, "gradient", batch, payer, kept)
            if any(name in needed for name in layer.inputs):
                yield self.op(layer, "error", batch, payer, kept)

    def update(self, payer: str = "main") -> Iterator[Op]:
        """Ops of the parameter update."""
        for layer in self.network.layers:
            if layer.name in self.trained:
                yield self.op(layer, "update", 0, payer)

    def kept(self, layer: Layer) -> int:
        """Output channels of the layer's error map that pruning keeps."""
        return kept_channels(layer, self.layer_keep.get(layer.name, self.prune_keep))

    def prunes(self, layer: Layer) -> tuple[str, ...]:
        """Phases of operations.PRUNING that the layer's error map goes through."""
        needed = self.kept(layer) < layer.out_channels, self.thinned and layer.kind == "conv"
        return tuple(phase for phase, used in zip(PRUNING, needed, strict=True) if used)

    def step(self, batch: int, payer: str = "main") -> Trace:
        """Trace of one training step over `batch` instances."""
        ops = [*self.forward(batch, payer), *self.backward(batch, payer), *self.update(payer)]
        return Trace.of(ops, n_instances=batch)

    def dense(self, widths: Widths | None = None) -> Schedule:
        """The same training without pruning, at other widths if given: what a saving is measured against."""
        overrides = self.layer_widths if widths is None else {}
        return dataclasses.replace(
            self, widths=widths or self.widths, layer_widths=overrides, prune_keep=1.0, layer_keep={}, thinned=False
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the run folder."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return data | {
            "network": self.network.to_json(),
            "widths": dataclasses.asdict(self.widths),
            "layer_widths": {name: dataclasses.asdict(w) for name, w in self.layer_widths.items()},
            "frozen": sorted(self.frozen),
            "bias_only": sorted(self.bias_only),
            "trained_channels": dict(self.trained_channels),
            "layer_keep": dict(self.layer_keep),
            "extra_ram_bytes": dict(self.extra_ram_bytes),
        }

    @classmethod
    def from_json(cls, data: Any) -> Schedule:
        """Inverse of to_json. Raises HwmodelError naming what does not fit."""
        readers: dict[str, Callable[[Any, str], Any]] = {
            "network": lambda value, _: Network.from_json(value),
            "widths": read_widths,
            "layer_widths": lambda v, w: {n: read_widths(x, at) for n, x, at in records.by_name(v, w)},
            "frozen": lambda value, where: frozenset(records.texts(value, where)),
            "bias_only": lambda value, where: frozenset(records.texts(value, where)),
            "trained_channels": lambda v, w: {n: records.whole(x, at, 1) for n, x, at in records.by_name(v, w)},
            **dict.fromkeys(("momentum", "weight_decay", "fused_update", "thinned"), records.flag),
            "prune_keep": lambda value, where: records.number(value, where, 0, 1),
            "layer_keep": lambda v, w: {n: records.number(x, at, 0, 1) for n, x, at in records.by_name(v, w)},
            "importance": records.texts,
            "extra_ram_bytes": lambda v, w: {n: records.whole(x, at) for n, x, at in records.by_name(v, w)},
        }
        for name in records.mapping(data, "schedule"):
            if name not in readers:
                raise HwmodelError("schedule: " + unknown("field", name, readers))
        before = {} if data.get("thinned") else {"importance": ["error"]}  # thinning was recorded as a selection
        data = {"trained_channels": {}, **before, **data}  # runs of before there were such choices
        return cls(**{n: read(records.field(data, n, "schedule"), f"schedule: {n}") for n, read in readers.items()})


def filtered_step(main: Schedule, batch: int, n_kept: int, n_uncertain: int, filter_net: Schedule | None) -> Trace:
    """Trace of one step with an instance filter (Wu et al. 2020): the filter's forward on all `batch` instances, the
    main forward on the kept and the uncertain, the main backward on the kept, the filter's backward on both."""
    trace = Trace(n_steps=1, n_instances=batch)
    ops: list[Op] = []
    if filter_net is not None:
        ops += filter_net.forward(batch, "filter")
    if n_uncertain:
        ops += main.forward(n_uncertain, "uncertain")
    if n_kept:
        ops += [*main.forward(n_kept), *main.backward(n_kept), *main.update()]
    if filter_net is not None and n_kept + n_uncertain:
        ops += [*filter_net.backward(n_kept + n_uncertain, "filter"), *filter_net.update("filter")]
    for op in ops:
        trace.add(op)
    return trace


def inference(network: Network, widths: Widths, batch: int = 1) -> Trace:
    """Trace of one inference with normalizations folded and all weights frozen."""
    folded = network.folded()
    schedule = Schedule(folded, widths, frozen=frozenset(layer.name for layer in folded.layers))
    return Trace.of(schedule.forward(batch), n_instances=batch)
