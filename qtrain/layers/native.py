"""Layers that run by their own library's code: their quantizers rule the forward, the errors and gradients are ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import brevitas.config
import torch
from torch import Tensor, nn

from qtrain.formats.fixed import FixedTensor
from qtrain.formats.noise import Stream
from qtrain.layers.steps import Step
from qtrain.layers.tape import Tape
from qtrain.pruners import Pruner

Rounder = Callable[..., FixedTensor]
# by default Brevitas makes new parameters when a state_dict is loaded, and those in training would be left behind
brevitas.config.REINIT_ON_STATE_DICT_LOAD = False


@dataclass(slots=True)
class NativeTensor(FixedTensor):
    """Values between two native layers, with the Brevitas tensor (scale, zero point, bits) they came in, if any."""

    quant: Any = None

    def leaf(self, dtype: torch.dtype) -> tuple[Tensor, Any]:
        """(the values as a new leaf of PyTorch's graph, what the next layer is given)."""
        leaf = self.values.detach().to(dtype).requires_grad_()
        return leaf, leaf if self.quant is None else self.quant.set(value=leaf)

    @classmethod
    def of(cls, result: Any) -> NativeTensor:
        """What a layer returned, cut off from the graph that made it."""
        if isinstance(result, Tensor):
            return cls(result.detach())
        return cls(result.value.detach(), None, result.detach())


def statistics_state(model: nn.Module) -> dict[str, dict[str, Any]]:
    """What Brevitas leaves out of a state_dict: the statistics its activation scales are still collecting."""
    found = {name: module for name, module in model.named_modules() if hasattr(module, "collect_stats_steps")}
    return {
        name: {"counter": module.counter, "buffer": module.buffer.tolist(), "value": module.value.tolist()}
        for name, module in found.items()
    }


def load_statistics_state(model: nn.Module, states: dict[str, dict[str, Any]]) -> None:
    """Restore what `statistics_state` gave, after the state_dict."""
    for name, state in states.items():
        module: Any = model.get_submodule(name)
        module.counter = state["counter"]
        for key in ("buffer", "value"):
            tensor = getattr(module, key)
            tensor.data.copy_(torch.tensor(state[key], dtype=tensor.dtype))


class NativeUnit:
    """A step of a Brevitas model. Each of its calls is differentiated by PyTorch alone, as its library defines it
    (straight-through estimators, clamps, learned scales); between a product and its activation the error map is pruned.

    `errors` quantizes each input's error, `gradients` the gradient of each parameter. Random layers (dropout, Brevitas'
    stochastic rounding) draw from a generator seeded by the noise stream of this layer and step. A scale that travels
    with a tensor is a constant to the layer that reads it.
    """

    def __init__(
        self, step: Step, errors: list[Rounder], gradients: dict[nn.Parameter, Rounder], pruner: Pruner, stream_id: int
    ) -> None:
        self.name, self.layer, self.calls = step.layer.name, step.layer, step.calls or [lambda x: x]
        self.modules = [call.module for call in step.calls or [] if call.module is not None]
        self.errors, self.gradients, self.pruner, self.stream_id = errors, gradients, pruner, stream_id
        product = isinstance(step.module, (nn.Conv2d, nn.Linear))
        self.weight: Tensor | None = step.module.weight if product else None  # type: ignore
        self.biases = {m.bias for m in self.modules if isinstance(getattr(m, "bias", None), nn.Parameter)}
        self.trains = "all"

    def forward(self, tape: Tape, *inputs: FixedTensor) -> FixedTensor:
        n_values = inputs[0].values.numel() // max(self.layer.in_channels, 1)
        for module in self.modules:  # a batch of one value a channel has no variance
            module.train(tape.training and n_values > 1)
        stages: list[tuple[list[Tensor], Tensor]] = []
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(Stream(tape.clock.seed, tape.clock.step, self.stream_id).key)
            for call in self.calls:
                dtype = next((p.dtype for p in self.gradients), torch.float32)
                pairs = [NativeTensor(x.values, None, getattr(x, "quant", None)).leaf(dtype) for x in inputs]
                result = call(*(argument for _, argument in pairs))
                stages.append(([leaf for leaf, _ in pairs], result if isinstance(result, Tensor) else result.value))
                inputs = (NativeTensor.of(result),)
        tape.save(self.name, (), stages)
        return inputs[0]

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        (stages,) = tape.take(self.name)
        g = self._widened(error.values, stages[-1][1], tape)
        learning = [p for p in self.gradients if p.requires_grad and self._learns(p)]
        sums: dict[nn.Parameter, Tensor] = {}
        for position, (leaves, y) in reversed(list(enumerate(stages))):
            if position == 0 and self.weight is not None:
                g = self._pruned(FixedTensor(g, error.exponent), tape)
            results = torch.autograd.grad(y, [*leaves, *learning], g, allow_unused=True)
            for parameter, gradient in zip(learning, results[len(leaves) :], strict=True):
                if gradient is not None:
                    sums[parameter] = sums[parameter] + gradient if parameter in sums else gradient
            inputs = [torch.zeros_like(x) if r is None else r for x, r in zip(leaves, results, strict=False)]
            g = inputs[0]
        for parameter, gradient in sums.items():
            values = self.gradients[parameter](gradient, tape.clock).values.to(parameter.dtype)
            parameter.grad = values if parameter.grad is None else parameter.grad + values
        if not needed:
            return tuple(None for _ in inputs)
        if tape.narrowed is not None:
            inputs = [g[tape.narrowed] for g in inputs]
        return tuple(q(g, tape.clock, tape.rows) for q, g in zip(self.errors, inputs, strict=True))

    def _learns(self, parameter: nn.Parameter) -> bool:
        return self.trains == "all" or (self.trains == "bias" and parameter in self.biases)

    def _widened(self, g: Tensor, y: Tensor, tape: Tape) -> Tensor:
        """The error in the shape of the output: the instances that do not go back bring none."""
        g = g.to(y.dtype).view(len(g), *y.shape[1:])
        if tape.narrowed is None or len(g) == len(y):
            return g
        return torch.zeros_like(y).index_copy_(0, tape.narrowed, g)

    def _pruned(self, error: FixedTensor, tape: Tape) -> Tensor:
        """The error with pruned channels zero: PyTorch's own backward computes them all."""
        assert self.weight is not None
        kept, channels, density = self.pruner.prune(error, self.weight.detach(), self.layer, tape)
        tape.note(self.name, self.layer.out_channels if channels is None else len(channels), density)
        if channels is None:
            return kept
        return torch.zeros_like(kept).index_copy_(1, channels, kept[:, channels])
