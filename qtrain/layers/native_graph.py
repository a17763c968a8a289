"""Models built of Brevitas layers: every step keeps the calls that compute it, and its widths come from its quantizers.

Fused into the layer before: activations and quantizers (QuantReLU, QuantIdentity, ...), dropout, arithmetic with a
constant (such as the 2 x - 1 that opens many networks). A module with parameters of its own and an output shaped like
its input is priced as a batch normalization.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import brevitas.nn as qnn
import torch
import torch.nn.functional as F
from brevitas.nn.quant_layer import QuantNonLinearActLayer
from torch import Tensor, fx, nn

from hwmodel.operations import COPIES, MAC_KINDS
from qtrain.layers.builder import Builder
from qtrain.layers.nodes import FLATTEN, n_readers
from qtrain.layers.steps import Step

UNQUANTIZED_BITS = 32
"""Width of what no quantizer of the model rounds: float32."""
_BASES = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_RELU = (nn.ReLU, nn.ReLU6, qnn.QuantReLU, F.relu, torch.relu, "relu")
_SCALAR = (operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, torch.mul, torch.add, torch.sub)
_FUSABLE = (*MAC_KINDS, "batchnorm", "add", "avgpool", "input", "activation")


class NativeCall:
    """One node of the traced model, to be called on the values of the nodes it reads."""

    def __init__(self, node: fx.Node, module: nn.Module | None, sources: list[fx.Node], constants: dict[fx.Node, Any]):
        self.node, self.module, self.sources, self.constants = node, module, sources, constants

    def __call__(self, *values: Any) -> Any:
        found = self.constants | dict(zip(self.sources, values, strict=True))
        args, kwargs = fx.node.map_arg((self.node.args, self.node.kwargs), found.__getitem__)
        if self.module is not None:
            return self.module(*args, **kwargs)
        if self.node.op == "call_method":
            return getattr(args[0], str(self.node.target))(*args[1:], **kwargs)
        return self.node.target(*args, **kwargs)  # type: ignore[operator]


class Flatten:
    """A view as [n, features], whatever batch size the model was traced with."""

    module = None

    def __call__(self, value: Any) -> Any:
        return value.flatten(1)


class NativeBuilder(Builder):
    """Steps of a model that contains Brevitas layers."""

    def __init__(self, gm: fx.GraphModule, name: str) -> None:
        super().__init__(gm, name)
        self.constants: dict[fx.Node, Any] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(self.gm)
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.constants[node] = value
                return
        super().visit(node)

    def _key(self, node: fx.Node) -> tuple[Any, nn.Module | None]:
        key, module = super()._key(node)
        return next((base for base in _BASES if isinstance(module, base)), key), module

    def _call(self, node: fx.Node, key: Any, module: nn.Module | None) -> None:
        sources = [n for n in node.all_input_nodes if n in self.alias]
        if len(sources) not in (1, 2):
            raise self._unsupported(node, key)
        source, call = sources[0], NativeCall(node, module, sources, self.constants)
        before = len(self.steps)
        if len(sources) == 2:
            if not (isinstance(module, qnn.QuantEltwiseAdd) or key in (operator.add, operator.iadd, torch.add, "add")):
                raise self._unsupported(node, key)
            inputs = tuple(self.alias[n] for n in sources)
            self._add(Step(self._layer(source, "add", inputs, node)), node)
        elif key in FLATTEN and self._flattens(node):
            self._append(node, source, Flatten(), "none")
            return
        elif key in _RELU or isinstance(module, (*_RELU[:3], QuantNonLinearActLayer)):
            relu = key in _RELU or isinstance(module, qnn.QuantReLU)
            self._append(node, source, call, "relu" if relu else "none")
            return
        elif key in _SCALAR or isinstance(module, nn.Dropout):
            self._append(node, source, call, "none")
            return
        elif key not in _BASES and module is not None and _is_elementwise(node, source, module):
            self._add(Step(self._layer(source, "batchnorm", (self.alias[source],), node), module), node)
        else:
            super()._call(node, key, module)
        step = self.steps[self.alias[node]]
        if len(self.steps) > before or step.moves:
            step.calls = [*(step.calls or []), call]

    def _append(self, node: fx.Node, source: fx.Node, call: Any, activation: str) -> None:
        """Compute `call` as part of the step before it, or as a step of its own where that is read by others, too."""
        name = self.alias[source]
        step = self.steps[name]
        moves = isinstance(call, Flatten)
        if n_readers(source) > 1 or not (moves or step.layer.kind in _FUSABLE):
            layer = self._layer(source, "shortcut" if moves else "activation", (name,), node)
            self._add(Step(dataclasses.replace(layer, activation=activation), calls=[call]), node)
            return
        if activation != "none":
            step.layer = dataclasses.replace(step.layer, activation=activation)
        step.calls = [*(step.calls or []), call]
        self.alias[node] = name

    def _add(self, step: Step, node: fx.Node) -> None:
        step.calls = step.calls or []
        super()._add(step, node)


def _is_elementwise(node: fx.Node, source: fx.Node, module: nn.Module) -> bool:
    """Whether a module looks like a normalization: same shape out as in, and no parameter but scalars and vectors."""
    own = [p.dim() for p in module.parameters(recurse=False)]
    return bool(own) and max(own) <= 1 and node.meta["shape"] == source.meta["shape"]


def widths_of(steps: list[Step]) -> dict[str, dict[str, int]]:
    """Weight, activation and normalization-input bits of each step by layer name, as its own quantizers have them.

    A product's activation bits are those of its input, what its multipliers see; its output's are its norm_bits.
    """
    stored: dict[str, int] = {}
    widths: dict[str, dict[str, int]] = {}
    for step in steps:
        layer = step.layer
        modules = [call.module for call in step.calls or [] if call.module is not None]
        found = [b for m in modules if (b := _bits(m, "act_quant") or _bits(m, "output_quant"))]
        read = stored[layer.inputs[0]] if layer.inputs else UNQUANTIZED_BITS
        copied = read if layer.kind in COPIES or layer.kind == "loss" else UNQUANTIZED_BITS
        stored[layer.name] = found[-1] if found else copied
        weights = [b for m in modules if (b := _bits(m, "weight_quant"))]
        widths[layer.name] = {
            "weight_bits": weights[0] if weights else UNQUANTIZED_BITS,
            "activation_bits": read if layer.kind in MAC_KINDS else stored[layer.name],
            "norm_bits": stored[layer.name],
        }
    return widths


def _bits(module: nn.Module, proxy_name: str) -> int | None:
    """Bits of one of a Brevitas layer's quantizers; None where it has none or it is no integer one."""
    proxy = getattr(module, proxy_name, None)
    bit_width: Callable[[], Tensor | None] | None = getattr(proxy, "bit_width", None)
    if proxy is None or not proxy.is_quant_enabled or bit_width is None:
        return None
    with torch.no_grad():
        width = bit_width()
    return None if width is None else int(width)
