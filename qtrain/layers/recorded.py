"""A quantized network at rest: its layers and numbers, which of them learn, and every pass it has made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import nn

from hwmodel.network import Network
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace
from qtrain.errors import QtrainError
from qtrain.formats.names import FIXED
from qtrain.layers.accumulator import Accumulator
from qtrain.layers.mac import MacUnit
from qtrain.layers.plan import NumberPlan
from qtrain.layers.tape import Tape
from qtrain.pruners import NoPruning, Pruner


class RecordedNetwork(nn.Module):
    """What a QuantizedNetwork (qtrain.layers.network) holds besides its way of running."""

    native = False  # of Brevitas layers, which expect float32
    _points: list[Any] = []  # noqa: RUF012 - replaced by quantize()

    def __init__(self, model: nn.Module, network: Network, units: list[Any], plan: NumberPlan, pruner: Pruner) -> None:
        super().__init__()
        self.model = model
        self.network, self.plan, self.pruner = network, plan, pruner
        self.units = units
        self.counts: dict[tuple[int, str, str, int, int], list[float]] = defaultdict(lambda: [0, 0.0])
        self.frozen: frozenset[str] = frozenset()
        self.bias_only: frozenset[str] = frozenset()
        self.trained_channels: Mapping[str, int] = {}
        self.left_out: frozenset[str] = frozenset()  # layers of the last training pass's blocks left out
        self._index = {layer.name: i for i, layer in enumerate(network.layers)}
        self.choose_trained("all")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one instance."""
        first = self.network.layers[0]
        return first.in_channels, first.in_height, first.in_width

    @cached_property
    def widest(self) -> int:
        """Bits of the widest fixed-point operand of any product."""
        found = [0]
        for layer in self.network.layers:
            widths, formats = self.plan.for_layer(layer.name), self.plan.formats_for(layer.name)
            fixed = [role for role in ("weight", "activation", "error") if formats.of(role) == FIXED]
            found += [getattr(widths, f"{role}_bits") for role in fixed]
            found += [widths.norm_bits] if "activation" in fixed else []
        return max(found)

    # -- what is trained -------------------------------------------------------------------------------------------

    def choose_trained(self, layers: str, bias_only: str = "") -> None:
        """Train the layers whose names match the comma-separated globs `layers`, of those in `bias_only` the bias
        alone; of those with a share the first output channels (hwmodel.network.Network.choose_trained). Raises
        HwmodelError for a glob that matches no layer with parameters, QtrainError for a share that cannot be had."""
        chosen = self.network.choose_trained(layers, bias_only)
        self.frozen, self.bias_only, self.trained_channels = chosen.frozen, chosen.bias_only, chosen.channels
        if self.trained_channels and not isinstance(self.pruner, NoPruning):
            raise QtrainError(
                "a share of the channels (--train GLOB:SHARE) and pruning exclude each other; add --prune none"
            )
        for unit in self.units:
            if hasattr(unit, "trains"):
                name = unit.name
                if name in self.trained_channels:
                    if not isinstance(unit, MacUnit):
                        raise QtrainError(f"layer {name!r} runs in another library: train all of its channels or none")
                    unit.trained_channels = self.trained_channels[name]
                unit.trains = "none" if name in self.frozen else "bias" if name in self.bias_only else "all"
        trained = frozenset(la.name for la in self.network.layers if la.n_parameters) - self.frozen
        self._needed = self.network.needs_error(trained)

    # -- what was done ---------------------------------------------------------------------------------------------

    def schedule(self, **settings: Any) -> Schedule:
        """What this network's training is made of, for pricing; `settings` are Schedule's optimizer terms."""
        layers = self.network.layers
        return Schedule(
            self.network,
            self.plan.widths,
            layer_widths={la.name: w for la in layers if (w := self.plan.for_layer(la.name)) != self.plan.widths},
            frozen=self.frozen,
            bias_only=self.bias_only,
            trained_channels=self.trained_channels,
            layer_keep={la.name: k for la in layers if la.kind == "conv" and (k := self.pruner.keeps(la)) < 1},
            importance=self.pruner.norms,
            thinned=self.pruner.thins,
            **settings,
        )

    def _record_backward(self, unit: Any, tape: Tape, n: int, error: bool) -> None:
        kept, density = tape.pruned.pop(unit.name, (unit.layer.out_channels, 1.0))
        if kept < unit.layer.out_channels:
            self._record(unit.name, "select", tape.payer, n)
        if self.pruner.thins and unit.layer.kind == "conv":
            self._record(unit.name, "thin", tape.payer, n)
        if getattr(unit, "trains", "none") != "none" and unit.layer.n_parameters:
            self._record(unit.name, "gradient", tape.payer, n, self._learning_channels(unit, kept), density)
        if error:
            self._record(unit.name, "error", tape.payer, n, kept, density)

    def _learning_channels(self, unit: Any, kept: int) -> int:
        """Channels whose gradient is computed."""
        return self.trained_channels.get(unit.name, kept) if unit.trains == "all" else kept

    def _record(
        self, name: str, phase: str, payer: str, batch: int, kept: int | None = None, density: float = 1.0
    ) -> None:
        index = self._index[name]
        channels = self.network.layers[index].out_channels if kept is None else kept
        tally = self.counts[(index, phase, payer, batch, channels)]
        tally[0] += 1
        tally[1] += density

    def record_ranking(self, n: int) -> None:
        """Write down that this filter network's rule sorted `n` values to choose instances."""
        if n:
            self._record("loss", "rank", "filter", n)

    def record_update(self, payer: str = "main") -> None:
        """Write down one update of every trained layer that took part in the step."""
        for layer in self.network.layers:
            if layer.n_parameters and layer.name not in self.frozen | self.left_out:
                self._record(layer.name, "update", payer, 0)

    def trace(self, schedule: Schedule, n_steps: int = 0, n_instances: int = 0) -> Trace:
        """Everything recorded so far as Ops of `schedule`."""
        trace_ = Trace(n_steps=n_steps, n_instances=n_instances)
        for (index, phase, payer, batch, kept), (count, density_sum) in self.counts.items():
            op = schedule.op(self.network.layers[index], phase, batch, payer, kept)
            trace_.add(op, int(count), density_sum / count)
        return trace_

    # -- the numbers held ------------------------------------------------------------------------------------------

    def quantizers(self) -> dict[str, Any]:
        """Every quantization point by name."""
        return {q.name: q for q in self._points}

    def accumulators(self) -> dict[str, Accumulator]:
        """The accumulator of every layer with products in fixed point, by the layer's name."""
        found = {unit.name: unit.accumulator for unit in self.units if isinstance(unit, MacUnit)}
        return {} if self.plan.floating else found

    def numbers_state(self) -> dict[str, Any]:
        """Exponents and maxima of every quantization point, the pruner's state, counted overflows, and Brevitas layers'
        statistics."""
        state = {
            "points": {q.name: q.state() for q in self._points},
            "pruner": self.pruner.state(),
            "accumulators": {name: accumulator.state() for name, accumulator in self.accumulators().items()},
        }
        if self.native:
            from qtrain.layers.native import statistics_state

            state["collected"] = statistics_state(self.model)
        return state

    def load_numbers_state(self, state: dict[str, Any]) -> None:
        """Restore what `numbers_state` gave, after the model's own state_dict."""
        self.load_points(state["points"])
        self.pruner.load_state(state["pruner"])
        for name, accumulator in self.accumulators().items():
            accumulator.load_state(state["accumulators"][name])
        if self.native:
            from qtrain.layers.native import load_statistics_state

            load_statistics_state(self.model, state["collected"])

    def load_points(self, states: dict[str, Any]) -> None:
        """Restore every quantization point's maximum and exponent. Raises QtrainError if they are another model's."""
        points = self.quantizers()
        if set(points) != set(states):
            raise QtrainError("the checkpoint's quantization points are not this model's; give the same model and bits")
        for name, values in states.items():
            points[name].load_state(values)
