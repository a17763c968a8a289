"""Steps from the nodes of a traced plain model: patterns are fused, shapes become Layers.

Fused: zero padding into the convolution it feeds; ReLU or ReLU6 into the layer before it.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

import torch
from torch import fx, nn

from hwmodel.network import Network
from hwmodel.operations import MAC_KINDS, NORM_KINDS, Layer
from qtrain.errors import QtrainError
from qtrain.layers.nodes import (
    ADAPTIVE,
    ADD,
    AVG,
    DROPOUT,
    FLATTEN,
    MAC,
    MAX,
    NORM,
    PAD,
    RELU,
    SKIP,
    mean_window,
    n_readers,
    pad_widths,
    pool_window,
    shape_of,
)
from qtrain.layers.steps import Step, connected


class Builder:
    """Turns the nodes of a traced plain model into steps."""

    def __init__(self, gm: fx.GraphModule, name: str) -> None:
        self.gm, self.name = gm, name
        self.steps: dict[str, Step] = {}
        self.alias: dict[fx.Node, str] = {}  # node -> name of the layer whose output it is
        self.pads: dict[fx.Node, tuple[int, ...]] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            if "input" in self.steps:
                raise QtrainError(f"{self.name}: the model's forward takes more than one input; give it one image")
            self._add(Step(self._layer(node, "input", (), node)), node)
        elif node.op == "output":
            result = node.args[0]
            if not isinstance(result, fx.Node):
                raise QtrainError(f"{self.name}: the model returns {type(result).__name__}; return one tensor")
            self.result = self.alias[result]
        elif node.op == "get_attr":
            raise QtrainError(f"{self.name}: {node.target} is used outside a layer; put it into a Conv2d or Linear")
        else:
            key, module = self._key(node)
            self._call(node, key, module)

    def _key(self, node: fx.Node) -> tuple[Any, nn.Module | None]:
        if node.op != "call_module":
            return node.target, None
        module = self.gm.get_submodule(str(node.target))
        return type(module), module

    def _call(self, node: fx.Node, key: Any, module: nn.Module | None) -> None:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source not in self.alias:
            raise self._unsupported(node, key)
        if key in SKIP or (key in FLATTEN and self._flattens(node)):
            self.alias[node] = self.alias[source]
        elif key in DROPOUT:
            p = getattr(module, "p", node.kwargs.get("p", 0.5))
            if p:
                raise QtrainError(f"{self.name}: layer {self._label(node)} is Dropout; set p=0 or remove it")
            self.alias[node] = self.alias[source]
        elif key in MAC and module is not None:
            self._mac(node, source, module, MAC[key])
        elif key in NORM and module is not None:
            self._norm(node, source, module, NORM[key])
        elif key in RELU:
            self._activation(node, source, RELU[key])
        elif key in ADD and len(node.args) > 1 and isinstance(node.args[1], fx.Node):
            inputs = (self.alias[source], self.alias[node.args[1]])
            self._add(Step(self._layer(source, "add", inputs, node)), node)
        elif key in PAD:
            self._move(node, source, ("pad", pad_widths(node, module)))
        elif key is operator.getitem and isinstance(node.args[1], tuple):
            self._move(node, source, ("slice", node.args[1]))
        elif key in MAX | AVG | ADAPTIVE or key == "mean" or key is torch.mean:
            self._pool(node, source, key, module)
        else:
            raise self._unsupported(node, key)

    def _flattens(self, node: fx.Node) -> bool:
        return len(node.meta["shape"]) == 2 or node.meta["shape"] == node.all_input_nodes[0].meta["shape"]

    def _unsupported(self, node: fx.Node, key: Any) -> QtrainError:
        label = getattr(key, "__name__", str(key))
        has = [] if node.op != "call_module" else list(self.gm.get_submodule(str(node.target)).parameters())
        kind = "a trainable layer" if has else "an operation"
        return QtrainError(
            f"{self.name}: {self._label(node)} ({label}) is {kind} qtrain can't simulate; use Conv2d, Linear, "
            "BatchNorm, GroupNorm, ReLU, pooling, additions, zero padding and flatten"
        )

    def _label(self, node: fx.Node) -> str:
        return str(node.target) if node.op == "call_module" else node.name

    def _mac(self, node: fx.Node, source: fx.Node, module: Any, kind: str) -> None:
        pad: tuple[int, ...] = ()
        origin = source
        if source in self.pads:
            pad = self.pads[source]
            origin = source.args[0]  # type: ignore[assignment]
        if kind == "conv":
            if module.padding_mode != "zeros" or isinstance(module.padding, str):
                raise QtrainError(f"{self.name}: layer {self._label(node)} needs numeric zero padding")
        elif len(source.meta["shape"]) != 2:
            raise QtrainError(f"{self.name}: layer {self._label(node)}: flatten its input to [n, features] first")
        layer = self._layer(origin, kind, (self.alias[origin],), node)
        layer = dataclasses.replace(layer, bias=module.bias is not None)
        if kind == "conv":
            layer = dataclasses.replace(
                layer, kernel_height=module.kernel_size[0], kernel_width=module.kernel_size[1],
                stride_height=module.stride[0], stride_width=module.stride[1], groups=module.groups,
            )  # fmt: skip
        else:
            layer = dataclasses.replace(layer, in_channels=module.in_features, in_height=1, in_width=1)
        self._add(Step(layer, module, pad), node)

    def _norm(self, node: fx.Node, source: fx.Node, module: Any, kind: str) -> None:
        if module.weight is None or not getattr(module, "track_running_stats", True):
            raise QtrainError(f"{self.name}: layer {self._label(node)} needs affine=True and running statistics")
        layer = self._layer(source, kind, (self.alias[source],), node)
        self._add(Step(dataclasses.replace(layer, groups=getattr(module, "num_groups", 1)), module), node)

    def _activation(self, node: fx.Node, source: fx.Node, which: str) -> None:
        name = self.alias[source]
        step = self.steps[name]
        fusable = step.layer.kind in (*MAC_KINDS, *NORM_KINDS, "add") and step.layer.activation == "none"
        if fusable and n_readers(source) == 1:
            step.layer = dataclasses.replace(step.layer, activation=which)
            self.alias[node] = name
        else:
            layer = dataclasses.replace(self._layer(source, "activation", (name,), node), activation=which)
            self._add(Step(layer), node)

    def _move(self, node: fx.Node, source: fx.Node, move: tuple[str, Any]) -> None:
        conv_only = all(u.op == "call_module" and type(self.gm.get_submodule(str(u.target))) is nn.Conv2d
                        for u in node.users)  # fmt: skip
        if move[0] == "pad" and len(move[1]) == 4 and conv_only:
            self.pads[node] = move[1]
            self.alias[node] = self.alias[source]
            return
        previous = self.steps[self.alias[source]]
        if previous.moves and n_readers(source) == 1:  # slice then pad: one shortcut
            shape = shape_of(node)
            previous.layer = dataclasses.replace(
                previous.layer, out_channels=shape[0], out_height=shape[1], out_width=shape[2]
            )
            previous.moves.append(move)
            self.alias[node] = previous.layer.name
            return
        self._add(Step(self._layer(source, "shortcut", (self.alias[source],), node), moves=[move]), node)

    def _pool(self, node: fx.Node, source: fx.Node, key: Any, module: nn.Module | None) -> None:
        mean = key in ADAPTIVE or key == "mean" or key is torch.mean
        kernel, stride, padding = mean_window(node, source) if mean else pool_window(node, module)
        kind = "maxpool" if key in MAX else "avgpool"
        layer = dataclasses.replace(
            self._layer(source, kind, (self.alias[source],), node),
            kernel_height=kernel[0], kernel_width=kernel[1], stride_height=stride[0], stride_width=stride[1],
        )  # fmt: skip
        self._add(Step(layer, padding=padding), node)

    def _layer(self, source: fx.Node, kind: str, inputs: tuple[str, ...], node: fx.Node) -> Layer:
        ins, outs = shape_of(source), shape_of(node)
        name = "input" if kind == "input" else self._label(node)
        return Layer(name, kind, inputs, *ins, *outs)

    def _add(self, step: Step, node: fx.Node) -> None:
        name = step.layer.name
        count = 2
        while name in self.steps:  # a module used twice
            name, count = f"{step.layer.name}@{count}", count + 1
        step.layer = dataclasses.replace(step.layer, name=name)
        self.steps[name] = step
        self.alias[node] = name

    def finish(self) -> tuple[list[Step], Network]:
        """The model's steps and shapes."""
        steps = list(self.steps.values())
        if self.result != steps[-1].layer.name:
            raise QtrainError(f"{self.name}: the model's last layer is not what it returns")
        return connected(steps, self.name)
