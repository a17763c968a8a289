"""Layers that compute in float32: forward as they are, backward by PyTorch's own derivative of one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.pointwise import RELU6_CAP, through_activation
from qtrain.layers.tape import Tape


class PassThrough:
    """The quantizer of float32: stores the number as it is, after the activation it stands for."""

    def __init__(self, activation: str = "none") -> None:
        self.activation = activation

    def __call__(self, x: Tensor, *_: Any, plus: Tensor | None = None, **__: Any) -> FixedTensor:
        x = x if plus is None else x + plus
        if self.activation == "relu":
            x = F.relu(x)
        elif self.activation == "relu6":
            x = F.hardtanh(x, 0.0, RELU6_CAP)
        return FixedTensor(x)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class AutogradUnit:
    """A normalization in float32 on the master's parameters, whose backward is PyTorch's: that of the float32 plan, and
    of a network any of whose activations or errors is no fixed point.

    `output` stores what the layer returns, `error` its input error, `gradient` makes each parameter's point.
    """

    def __init__(
        self, layer: Layer, module: nn.Module, output: Callable[..., FixedTensor], error: Callable[..., FixedTensor],
        gradient: Callable[[str], Callable[..., FixedTensor]],
    ) -> None:  # fmt: skip
        self.name, self.layer, self.module = layer.name, layer, module
        self.output, self.error = output, error
        roles = {"weight": "scale_gradient", "bias": "shift_gradient"}
        self.gradients = {n: gradient(roles[n]) for n, p in module.named_parameters() if p.requires_grad}
        self.trains = "all"

    def forward(self, tape: Tape, x: FixedTensor) -> FixedTensor:
        self.module.train(tape.training and x.values.numel() > x.values.shape[1])
        with torch.enable_grad():
            leaf = x.values.detach().to(self.module.weight.dtype).requires_grad_()  # type: ignore[arg-type]
            y = self.module(leaf)
        out = self.output(y.detach().to(x.values.dtype), tape.clock, tape.rows, learn=tape.training)
        tape.save(self.name, (out.values,), leaf, y)
        return out

    def backward(self, tape: Tape, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
        out, leaf, y = tape.take(self.name)
        g = error.values
        if self.layer.activation != "none":
            g = through_activation(g, out, self.layer.activation)
        g = g.to(y.dtype)
        if tape.narrowed is not None:  # the other instances bring no error
            g = torch.zeros_like(y).index_copy_(0, tape.narrowed, g)
        named = [(n, p) for n, p in self.module.named_parameters() if n in self.gradients and self._learns(n)]
        results = torch.autograd.grad(y, [leaf, *(p for _, p in named)], g)
        for (name, parameter), gradient in zip(named, results[1:], strict=True):
            values = self.gradients[name](gradient, tape.clock).values
            parameter.grad = values if parameter.grad is None else parameter.grad + values
        if not needed:
            return (None,)
        d_input = results[0] if tape.narrowed is None else results[0][tape.narrowed]
        return (self.error(d_input.to(out.dtype), tape.clock, tape.rows),)

    def _learns(self, name: str) -> bool:
        return self.trains == "all" or (self.trains == "bias" and name.endswith("bias"))
