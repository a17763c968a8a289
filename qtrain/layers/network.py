"""A network that computes in its plan's numbers, goes back by its own rules, and writes down every pass.

`quantize` turns a plain nn.Module into one; its parameters are shared, and hold the master weights.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hwmodel.network import Network
from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedTensor, carrier_dtype
from qtrain.layers.build import build_units
from qtrain.layers.depth import StochasticDepth
from qtrain.layers.graph import is_brevitas, trace
from qtrain.layers.plan import NumberPlan
from qtrain.layers.pointwise import ForkUnit
from qtrain.layers.quantizer import Clock
from qtrain.layers.recorded import RecordedNetwork
from qtrain.layers.tape import Tape
from qtrain.pruners import NoPruning, Pruner


class QuantizedNetwork(RecordedNetwork):
    """Runs a traced model layer by layer. Build with `quantize`.

    `forward` on an ordinary tensor works under autograd (one node for the whole network), so any loss can be put
    behind it; the trainer calls `run` and `run_back` directly.
    """

    def __init__(self, model: nn.Module, network: Network, units: list[Any], plan: NumberPlan, pruner: Pruner) -> None:
        super().__init__(model, network, units, plan, pruner)
        self.step = 0
        self.place = next((p.device for p in model.parameters()), torch.device("cpu"))  # where images are brought
        self.watch: Callable[[str, str, str, FixedTensor], None] | None = None  # (layer, pass, tensor, its values)
        self.depth: StochasticDepth | None = None
        last_reader = {name: unit.name for unit in units[:-1] for name in unit.layer.inputs}
        self._spent = {unit.name: [n for n, reader in last_reader.items() if reader == unit.name] for unit in units}

    def drop_blocks(self, last_survival: float) -> None:
        """Leave residual blocks out of training passes (qtrain.layers.depth). Raises QtrainError if there are none."""
        self.depth = StochasticDepth(self.network, last_survival)

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
        tape.averaged = out.exponent is None
        tape.out_shape = tuple(out.values.shape[1:])
        return FixedTensor(out.values.flatten(1), out.exponent), tape

    def run_back(self, tape: Tape, error: FixedTensor, *, to_input: bool = False) -> Tensor | None:
        """Backward from the error at the logits; parameter gradients are added to `.grad`. Returns the input's error
        if asked for."""
        payer, n = tape.payer, error.values.shape[0]
        pending: dict[str, list[FixedTensor]] = defaultdict(list)
        self._record("loss", "error", payer, n)
        pending[self.units[-2].name].append(FixedTensor(error.values.view(n, *tape.out_shape), error.exponent))
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

    def _carrier(self, x: Tensor) -> Tensor:
        dtype = torch.float32 if self.plan.floating or self.native else carrier_dtype(self.widest)
        if x.dim() == 4 and self.memory_format is not None:
            return x.to(self.place, dtype, memory_format=self.memory_format)
        return x.to(self.place, dtype)

    memory_format: torch.memory_format | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits [n, classes] of `x` [n, C, H, W] as a node of PyTorch's autograd graph."""
        return _WholeNetwork.apply(self, x, *self.parameters())


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

    input_shape: (C, H, W) of one instance. Raises QtrainError naming a layer that can't be simulated, and where there
    is nothing to train.
    """
    steps, network = trace(model, input_shape, name)
    if not any(layer.n_parameters for layer in network.layers):
        raise QtrainError(f"model {name} has no layer with weights to learn with; give another")
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
