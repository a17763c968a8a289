"""A network that computes in its plan's numbers, goes back by its own rules, and writes down every pass.

`quantize` turns a plain nn.Module into one; its parameters are shared, and hold the master weights.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hwmodel.network import Network
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace
from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedTensor, carrier_dtype
from qtrain.formats.names import FIXED
from qtrain.layers.accumulator import Accumulator
from qtrain.layers.build import build_units
from qtrain.layers.depth import StochasticDepth
from qtrain.layers.graph import is_brevitas, trace
from qtrain.layers.mac import MacUnit
from qtrain.layers.plan import NumberPlan
from qtrain.layers.pointwise import ForkUnit
from qtrain.layers.quantizer import Clock
from qtrain.layers.tape import Tape
from qtrain.pruners import NoPruning, Pruner


class QuantizedNetwork(nn.Module):
    """Runs a traced model layer by layer. Build with `quantize`.

    `forward` on an ordinary tensor works under autograd (one node for the whole network), so any loss can be put
    behind it; the trainer calls `run` and `run_back` directly.
    """

    def __init__(self, model: nn.Module, network: Network, units: list[Any], plan: NumberPlan, pruner: Pruner) -> None:
        super().__init__()
        self.model = model
        self.network, self.plan, self.pruner = network, plan, pruner
        self.units = units
        self.step = 0
        self.counts: dict[tuple[int, str, str, int, int], list[float]] = defaultdict(lambda: [0, 0.0])
        self.watch: Callable[[str, str, str, FixedTensor], None] | None = None  # (layer, pass, tensor, its values)
        self.frozen: frozenset[str] = frozenset()
        self.bias_only: frozenset[str] = frozenset()
        self.trained_channels: Mapping[str, int] = {}
        self.depth: StochasticDepth | None = None
        self.left_out: frozenset[str] = frozenset()  # layers of the last training pass's blocks left out
        self._index = {layer.name: i for i, layer in enumerate(network.layers)}
        last_reader = {name: unit.name for unit in units[:-1] for name in unit.layer.inputs}
        self._spent = {unit.name: [n for n, reader in last_reader.items() if reader == unit.name] for unit in units}
        self.choose_trained("all")

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

    def drop_blocks(self, last_survival: float) -> None:
        """Leave residual blocks out of training passes (qtrain.layers.depth). Raises QtrainError if there are none."""
        self.depth = StochasticDepth(self.network, last_survival)

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
            thinned=self.pruner.thins,
            **settings,
        )

    # -- running ---------------------------------------------------------------------------------------------------

    def run(
        self,
        x: Tensor,
        *,
        rows: Tensor | None = None,
        payer: str = "main",
        training: bool = True,
        record: bool = True,
    ) -> tuple[FixedTensor, Tape]:
        """Forward `x` [n, C, H, W]; returns (logits [n, classes], tape). With `training` False the normalizations use
        running statistics and no exponent is learned."""
        tape = Tape(Clock(self.plan.seed, self.step), rows, payer, training)
        if self.depth is not None and training:
            tape.left_out = self.left_out = self.depth.left_out(tape.clock)
        with torch.no_grad():
            values = {"input": FixedTensor(self._carrier(x))}
            for unit in self.units[:-1]:
                if unit.name in tape.left_out:
                    continue
                if record and not isinstance(unit, ForkUnit):
                    self._record(unit.name, "forward", payer, len(x))
                if isinstance(unit, ForkUnit):
                    values[unit.name] = values.pop(unit.layer.inputs[0])
                    continue
                names = [name for name in unit.layer.inputs if name not in tape.left_out]
                inputs = [values[name] for name in names] or [values["input"]]
                if self.depth is not None and not training and unit.name in self.depth.blocks:
                    inputs = self.depth.blocks[unit.name].scaled(inputs)
                values[unit.name] = unit.forward(tape, *inputs)
                for name in self._spent[unit.name]:
                    values.pop(name, None)
                if self.watch is not None:
                    self.watch(unit.name, "forward", "output", values[unit.name])
            if record:
                self._record("loss", "forward", payer, len(x))
        out = values[self.units[-2].name]
        return FixedTensor(out.values.flatten(1), out.exponent), tape

    def run_back(self, tape: Tape, error: FixedTensor, *, to_input: bool = False) -> Tensor | None:
        """Backward from the error at the logits; parameter gradients are added to `.grad`. Returns the input's error
        if asked for."""
        payer, n = tape.payer, error.values.shape[0]
        pending: dict[str, list[FixedTensor]] = defaultdict(list)
        last = self.units[-2]
        shape = (n, last.layer.out_channels, last.layer.out_height, last.layer.out_width)
        if last.layer.kind == "conv" or last.layer.n_out != last.layer.out_channels:
            error = FixedTensor(error.values.view(shape), error.exponent)
        self._record("loss", "error", payer, n)
        pending[last.name].append(error)
        result = None
        with torch.no_grad():
            for unit in reversed(self.units[:-1]):
                if unit.name not in pending:
                    continue
                errors = pending.pop(unit.name)
                if isinstance(unit, ForkUnit):
                    total = errors[0]
                    if len(errors) > 1:  # a block left out sends none
                        self._record(unit.name, "error", payer, n)
                        total = unit.sum(tape, errors)
                    self._hand_down(unit, 0, total, pending)
                    continue
                if not unit.layer.inputs:
                    result = errors[0].values
                    continue
                wanted = [
                    (to_input or name in self._needed) and name not in tape.left_out for name in unit.layer.inputs
                ]
                outs = unit.backward(tape, errors[0], any(wanted))
                self._record_backward(unit, tape, n, any(wanted))
                for i, (want, out) in enumerate(zip(wanted, outs, strict=True)):
                    if want and out is not None:
                        self._hand_down(unit, i, out, pending)
        return result

    def _hand_down(self, unit: Any, i: int, error: FixedTensor, pending: dict[str, list[FixedTensor]]) -> None:
        pending[unit.layer.inputs[i]].append(error)
        if self.watch is not None:
            self.watch(unit.name, "error", f"input{i}", error)

    def logit_error(self, error: Tensor, tape: Tape) -> FixedTensor:
        """The error at the logits, [n, classes], in the error format: what `run_back` starts from."""
        return self.units[-1].error(error, tape.clock, tape.rows)

    def _record_backward(self, unit: Any, tape: Tape, n: int, error: bool) -> None:
        kept, density = tape.pruned.pop(unit.name, (unit.layer.out_channels, 1.0))
        if kept < unit.layer.out_channels or (self.pruner.thins and unit.layer.kind == "conv"):
            self._record(unit.name, "select", tape.payer, n)
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

    def _carrier(self, x: Tensor) -> Tensor:
        dtype = torch.float32 if self.plan.floating or self.native else carrier_dtype(self.widest)
        if x.dim() == 4 and self.memory_format is not None:
            return x.to(dtype, memory_format=self.memory_format)
        return x.to(dtype)

    memory_format: torch.memory_format | None = None
    native = False  # of Brevitas layers, which expect float32

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

    # -- autograd and state ----------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of `x` [n, C, H, W] as a node of PyTorch's autograd graph."""
        return _WholeNetwork.apply(self, x, *self.parameters())

    def quantizers(self) -> dict[str, Any]:
        """Every quantization point by name."""
        return {q.name: q for q in self._points}

    def accumulators(self) -> dict[str, Accumulator]:
        """The accumulator of every layer with products in fixed point, by the layer's name."""
        found = {unit.name: unit.accumulator for unit in self.units if isinstance(unit, MacUnit)}
        return {} if self.plan.floating else found

    _points: list[Any] = []  # noqa: RUF012 - replaced by quantize()

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


class _WholeNetwork(torch.autograd.Function):
    """The network as one differentiable operation; parameter gradients go straight to `.grad`."""

    @staticmethod
    def forward(ctx: Any, net: QuantizedNetwork, x: Tensor, *parameters: Tensor) -> Tensor:
        logits, ctx.tape = net.run(x, training=net.training)
        ctx.net, ctx.n = net, len(parameters)
        return logits.values.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        net = ctx.net
        error = net.logit_error(grads[0], ctx.tape)
        result = net.run_back(ctx.tape, error, to_input=ctx.needs_input_grad[1])
        return (None, result, *([None] * ctx.n))


def quantize(
    model: nn.Module,
    input_shape: tuple[int, ...],
    plan: NumberPlan,
    pruner: Pruner | None = None,
    name: str = "model",
) -> QuantizedNetwork:
    """A QuantizedNetwork that trains `model`'s own parameters in the numbers of `plan`.

    input_shape: (C, H, W) of one instance. Raises QtrainError naming a layer that can't be simulated.
    """
    steps, network = trace(model, input_shape, name)
    native = is_brevitas(model)
    if native and not plan.floating:
        from qtrain.layers.native_graph import widths_of

        plan = dataclasses.replace(plan, layers={**plan.layers, **widths_of(steps)})
    pruner = pruner if pruner is not None else NoPruning()
    units, points = build_units(steps, plan, pruner)
    net = QuantizedNetwork(model, network, units, plan, pruner)
    net.native = native
    net._points = points
    return net
