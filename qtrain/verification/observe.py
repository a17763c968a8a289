"""The simulator as the integer reference sees it: its layers and parameters described, its stored tensors collected."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwmodel.operations import NORM_KINDS, STOCHASTIC_ROLES
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.channels import ChannelTensor
from qtrain.layers.loss import cross_entropy
from qtrain.layers.network import QuantizedNetwork
from qtrain.layers.norms.running import share_of
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.layers.steps import Step
from qtrain.reference import Engine, Node
from qtrain.reference.numbers import Stored, Wide

PARAMETERS = {"weight": "weight", "scale": "scale", "shift": "shift"}
GRADIENTS = {"gradient": "weight", "bias_gradient": "bias", "scale_gradient": "weight", "shift_gradient": "bias"}

Key = tuple[str, str, str]
"""Layer, pass, tensor."""


def simulate(
    net: QuantizedNetwork, optimizer: FixedSGD, x: Tensor, labels: Tensor, step: int, rows: Tensor | None = None
) -> dict[Key, FixedTensor]:
    """One training step of the simulator on instances `rows` of a batch (None: all of it); every stored tensor by
    (layer, pass, tensor)."""
    made: dict[Key, FixedTensor] = {}

    def keep(layer: str, which: str, tensor: str, stored: FixedTensor) -> None:
        made[layer, which, tensor] = FixedTensor(stored.values.clone(), stored.exponent)
        if isinstance(stored, ChannelTensor):
            made[layer, which, tensor] = ChannelTensor(stored.values.clone(), stored.exponent, stored.exponents)

    def keep_parameter(name: str, stored: FixedTensor) -> None:
        layer, _, role = name.rpartition(".")
        if role in PARAMETERS:
            keep(layer, "forward", PARAMETERS[role], stored)
        elif role in GRADIENTS:
            keep(layer, "gradient", GRADIENTS[role], stored)

    net.watch = keep
    for point in net.quantizers().values():
        point.watch = keep_parameter
    net.step = step
    logits, tape = net.run(x, rows=rows)
    _, error, scale = cross_entropy(logits, labels)
    start = net.logit_error(error, tape)
    keep("loss", "error", "logits", start)
    net.run_back(tape, start)
    learned = [name for name, p in net.model.named_parameters() if p.grad is not None]
    optimizer.step(Clock(net.plan.seed, step), scale)
    for name in learned:
        layer = name.rpartition(".")[0]
        keep(layer, "update", name, FixedTensor(optimizer.parameters[name].detach(), optimizer.exponents[name]))
        if name in optimizer.velocity:
            keep(layer, "update", f"{name}.momentum", FixedTensor(optimizer.velocity[name]))
    net.watch = None
    return made


def exact_pixels(x: Tensor) -> Wide:
    """Pixels as integers x 2^exponent, element by element: what the device's input table is made of."""
    mantissas, exponents = np.frexp(x.numpy().astype(np.float64))
    return Wide(np.ldexp(mantissas, 24).astype(np.int64), exponents.astype(np.int64) - 24)


def _masters(optimizer: FixedSGD) -> dict[str, Stored]:
    found = {}
    for name, parameter in optimizer.parameters.items():
        exponent = optimizer.exponents[name]
        codes = parameter.detach().double().numpy() * math.ldexp(1.0, -exponent)
        found[name] = Stored(codes.astype(np.int64), exponent)
    return found


def build_engine(net: QuantizedNetwork, steps: list[Step], optimizer: FixedSGD, record: dict[Key, Stored]) -> Engine:
    """The reference of `net` in its present state; it writes every stored tensor into `record`."""
    nodes = [_node(net, step) for step in steps]
    statistics = {
        step.layer.name: tuple([Fraction(v) for v in buffer.double().tolist()] for buffer in buffers(step.module))
        for step in steps if step.layer.kind in NORM_KINDS and buffers(step.module)
    }  # fmt: skip

    def keep(layer: str, which: str, tensor: str, stored: Stored) -> None:
        record[layer, which, tensor] = stored

    return Engine(nodes, net.plan.seed, _masters(optimizer), statistics, keep)  # type: ignore[arg-type]


def buffers(module: Any) -> tuple[Tensor, ...]:
    """Running statistics of a normalization: mean and variance or scaled range; none of GroupNorm's."""
    names = ("running_mean", "running_var", "running_scale")
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


def _node(net: QuantizedNetwork, step: Step) -> Node:
    layer, module = step.layer, step.module
    pad, dilation, moves = (0, 0, 0, 0), (1, 1), tuple(step.moves)
    if layer.kind == "conv":
        assert isinstance(module, torch.nn.Conv2d)
        left, right, top, bottom = step.pad or (0, 0, 0, 0)
        height, width = (int(p) for p in module.padding)
        pad = (top + height, bottom + height, left + width, right + width)
        dilation = (module.dilation[0], module.dilation[1])
    elif layer.kind in ("maxpool", "avgpool"):
        height, width = step.padding
        pad = (height, height, width, width)
    epsilon, share = 0.0, 0.0
    if layer.kind in NORM_KINDS:
        epsilon = float(module.eps)  # type: ignore[union-attr,arg-type]
        share = share_of(module) if buffers(module) else 0.0
    trains = "none"
    if layer.n_parameters and layer.name not in net.frozen:
        trains = "bias" if layer.name in net.bias_only else "all"
    rules = net.plan.rules_for(layer.name)
    roundings = {role: rules.rounding_of(role) for role in STOCHASTIC_ROLES}
    scales = {role: rules.scale_of(role) for role in STOCHASTIC_ROLES if role != "update"}
    return Node(
        layer, net.plan.for_layer(layer.name), roundings, scales, rules.accumulator, rules.per_channel,
        pad, dilation, epsilon, share, moves, trains
    )  # fmt: skip
