"""The step: forward, loss, backward, update, each layer by its rule in ARITHMETIC.md.

Every stored tensor is handed to `record(layer, pass, tensor, Stored)`, in the order it is made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwmodel.operations import MAC_KINDS, NORM_KINDS
from qtrain.reference import loss, norms, pointwise, products
from qtrain.reference.layout import Node, Sgd
from qtrain.reference.numbers import Stored, Wide, add, along_channels, to_grid
from qtrain.reference.points import Points
from qtrain.reference.update import Parameter

Record = Callable[[str, str, str, Stored], None]


class Engine:
    """A network in integers. `parameters` maps "layer.weight" and "layer.bias" to their masters; `statistics` maps
    a normalization to its running (means, variances or scaled ranges) as exact fractions."""

    def __init__(
        self, nodes: list[Node], seed: int, parameters: dict[str, Stored],
        statistics: dict[str, tuple[list[Fraction], list[Fraction]]], record: Record,
    ) -> None:  # fmt: skip
        self.nodes, self.statistics, self.record = nodes, statistics, record
        self.by_name = {node.name: node for node in nodes}
        self.parameters: dict[str, Parameter] = {}
        for name, master in parameters.items():
            node = self.by_name[name.rpartition(".")[0]]
            bits = node.widths.master_bits, node.widths.momentum_bits
            self.parameters[name] = Parameter(name, master, *bits, node.roundings["update"], seed)
        self.points = Points(nodes, seed)
        self.reached: set[str] = set()  # layers whose output's error somebody needs
        for node in nodes:
            if node.trains != "none" or any(name in self.reached for name in node.layer.inputs):
                self.reached.add(node.name)
        self.needed_bits: dict[tuple[str, str], int] = {}  # that hold every sum of each layer and pass
        self.overflows: dict[tuple[str, str], int] = {}  # sums that the layer's accumulator would not hold

    def _store(self, node: Node, role: str, x: Wide, cap: int | None = None) -> Stored:
        return self.points.store(node, role, x, self.step_index, cap, self.rows)

    def _held(self, node: Node, which: str, sums: Any) -> Any:
        """What the layer's accumulator holds of finished sums."""
        key, half = (node.name, which), 1 << (node.widths.accumulator_bits - 1)
        needed = max(int(sums.max(initial=0)), -1 - int(sums.min(initial=-1))).bit_length() + 1
        self.needed_bits[key] = max(self.needed_bits.get(key, 1), needed)
        beyond = (sums >= half) | (sums < -half) if half < 1 << 63 else np.zeros(sums.shape, dtype=bool)
        self.overflows[key] = self.overflows.get(key, 0) + int(beyond.sum())
        if not beyond.any():
            return sums
        if node.accumulator == "saturate":
            return np.clip(sums, -half, half - 1)
        return (sums + half) % (2 * half) - half

    # -- one step --------------------------------------------------------------------------------------------------

    def step(
        self, index: int, pixels: Wide, labels: NDArray[np.int64], sgd: Sgd, rows: NDArray[np.int64] | None = None
    ) -> None:
        """Train on `pixels` [n, C, H, W], exact, and `labels` [n]: a whole batch, or its instances `rows`."""
        self.step_index, self.rows = index, rows
        self.made: dict[str, Stored] = {}
        self.kept: dict[str, Any] = {}
        for node in self.nodes[:-1]:
            inputs = [self.made[name] for name in node.layer.inputs]
            out = self._forward(node, pixels, inputs)
            self.made[node.name] = out
            if node.layer.kind != "fork":
                self.record(node.name, "forward", "output", out)
        logits = self.made[self.nodes[-2].name]
        flat = Stored(logits.codes.reshape(len(labels), -1), logits.exponent)
        start = self._store(self.nodes[-1], "error", loss.error(flat, labels))
        self.record("loss", "error", "logits", start)
        self._backward(Stored(start.codes.reshape(logits.codes.shape), start.exponent))
        for name, gradient in self.gradients.items():
            parameter = self.parameters[name]
            layer = name.rpartition(".")[0]
            if sgd.shift:
                parameter.shift(gradient, self.by_name[layer].widths.gradient_bits, sgd.lr, index)
            else:
                parameter.update(gradient, 1.0 / len(labels), sgd, index)
            self.record(layer, "update", name, parameter.master)
            if parameter.momentum is not None:
                self.record(layer, "update", f"{name}.momentum", parameter.momentum)

    def _forward(self, node: Node, pixels: Wide, inputs: list[Stored]) -> Stored:
        kind, cap = node.layer.kind, pointwise.RELU6_CAP if node.layer.activation == "relu6" else None
        if kind == "input":
            return self._store(node, "output", pixels)
        x = inputs[0]
        if kind in MAC_KINDS:
            return self._store(node, "output", self._products(node, x), cap)
        if kind in NORM_KINDS:
            return self._store(node, "output", self._normalized(node, x), cap)
        if kind == "add":
            return self._store(node, "output", add(_wide(x), _wide(inputs[1])), cap)
        if kind == "activation":
            return self._store(node, "output", _wide(x), cap)
        if kind == "maxpool":
            codes, self.kept[node.name] = pointwise.max_pool(x.codes, node)
            return Stored(codes, x.exponent)
        if kind == "avgpool":
            return self._store(node, "output", pointwise.average_pool(x, node))
        if kind == "shortcut":
            return Stored(pointwise.moved(x.codes, node.moves), x.exponent)
        return x  # fork

    def _products(self, node: Node, x: Stored) -> Wide:
        master = self.parameters[f"{node.name}.weight"].master
        weight = self._store(node, "weight", _wide(master))
        self.record(node.name, "forward", "weight", weight)
        sums = products.forward(x.codes, weight.codes, node)
        exponent = x.exponent + along_channels(weight.exponent, sums)
        if node.layer.bias:
            largest = 1 << (min(node.widths.accumulator_bits, 32) - 2)  # as much is left for the products
            held = _wide(self.parameters[f"{node.name}.bias"].master)
            bias = to_grid(held, x.exponent + np.ravel(weight.exponent), -largest, largest, "nearest-even", None)
            sums = sums + bias.reshape(1, -1, *([1] * (sums.ndim - 2)))
        self.kept[node.name] = weight
        return Wide(self._held(node, "forward", sums), exponent)

    def _normalized(self, node: Node, a: Stored) -> Wide:
        scale = self._store(node, "scale", _wide(self.parameters[f"{node.name}.weight"].master))
        shift = self._store(node, "shift", _wide(self.parameters[f"{node.name}.bias"].master))
        self.record(node.name, "forward", "scale", scale)
        self.record(node.name, "forward", "shift", shift)
        cells, held = norms.OF_KIND[node.layer.kind].statistics(node, a, self.statistics.get(node.name))
        if held is not None:
            self.statistics[node.name] = held
        self.kept[node.name] = cells, scale
        return norms.forward(a, cells, scale, shift)

    # -- backward --------------------------------------------------------------------------------------------------

    def _backward(self, start: Stored) -> None:
        self.gradients: dict[str, Stored] = {}
        pending: dict[str, list[Stored]] = defaultdict(list)
        pending[self.nodes[-2].name].append(start)
        for node in reversed(self.nodes[1:-1]):
            if node.name not in pending:
                continue
            errors = pending.pop(node.name)
            if node.layer.kind == "fork":
                total = _wide(errors[0])
                for other in errors[1:]:
                    total = add(total, _wide(other))
                outs: list[Stored | None] = [self._store(node, "error", total)]
            else:
                wanted = [name in self.reached for name in node.layer.inputs]
                outs = self._back(node, errors[0], any(wanted))
            for i, (name, out) in enumerate(zip(node.layer.inputs, outs, strict=True)):
                if out is not None and name in self.reached:
                    self.record(node.name, "error", f"input{i}", out)
                    pending[name].append(out)

    def _back(self, node: Node, error: Stored, needed: bool) -> list[Stored | None]:
        layer = node.layer
        if layer.activation != "none":
            passed = pointwise.mask(self.made[node.name], layer.activation)
            error = Stored(error.codes * passed, error.exponent)
        if layer.kind in MAC_KINDS:
            return [self._back_products(node, error, needed)]
        if layer.kind in NORM_KINDS:
            return [self._back_normalized(node, error, needed)]
        if layer.kind in ("add", "activation"):
            return [error] * len(layer.inputs)
        shape = self.made[layer.inputs[0]].codes.shape
        if layer.kind == "shortcut":
            return [Stored(pointwise.moved_back(error.codes, node.moves, shape), error.exponent)]
        if layer.kind == "maxpool":
            codes = pointwise.max_pool_error(error.codes, self.kept[node.name], node, shape)
            apart = node.window[:2] == node.window[2:]
            spread: Stored | Wide = (Stored if apart else Wide)(codes, error.exponent)
        else:
            spread = pointwise.average_pool_error(error, node, shape)
        return [spread if isinstance(spread, Stored) else self._store(node, "error", spread)]

    def _keep(self, node: Node, which: str, role: str, x: Wide) -> None:
        stored = self._store(node, role, x)
        self.record(node.name, "gradient", which, stored)
        self.gradients[f"{node.name}.{which}"] = stored

    def _back_products(self, node: Node, error: Stored, needed: bool) -> Stored | None:
        x, weight = self.made[node.layer.inputs[0]], self.kept[node.name]
        if node.trains == "all":
            sums = products.weight_gradient(error.codes, x.codes, node, weight.codes.shape)
            sums = self._held(node, "gradient", sums)
            self._keep(node, "weight", "gradient", Wide(sums, error.exponent + x.exponent))
        if node.trains != "none" and node.layer.bias:
            sums = self._held(node, "gradient", products.bias_gradient(error.codes))
            self._keep(node, "bias", "bias_gradient", Wide(sums, error.exponent))
        if not needed:
            return None
        codes, exponent = products.aligned(weight, node)
        sums = self._held(node, "error", products.input_error(error.codes, codes, node, x.codes.shape))
        return self._store(node, "error", Wide(sums, error.exponent + along_channels(exponent, sums)))

    def _back_normalized(self, node: Node, error: Stored, needed: bool) -> Stored | None:
        a = self.made[node.layer.inputs[0]]
        rules = norms.OF_KIND[node.layer.kind]
        cells, scale = self.kept[node.name]
        sums = norms.error_sums(error.codes, a, cells)
        if node.trains != "none":
            totals = products.bias_gradient(error.codes)
            self._keep(node, "bias", "shift_gradient", Wide(totals, error.exponent))
        if node.trains == "all":
            codes, grids = np.array(rules.scale_gradient(sums, cells, len(scale.codes)), dtype=np.int64).T
            self._keep(node, "weight", "scale_gradient", Wide(codes, grids + error.exponent))
        if not needed:
            return None
        dx = rules.input_error(node, error.codes, a, cells, sums, scale)
        return self._store(node, "error", Wide(dx.codes, dx.exponent + error.exponent - a.exponent))


def _wide(x: Stored) -> Wide:
    return Wide(x.codes, x.exponent)
