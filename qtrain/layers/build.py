"""From traced steps to runnable units, each with its quantization points."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwmodel.operations import MAC_KINDS, NORM_KINDS, Widths
from qtrain.errors import QtrainError
from qtrain.formats import names
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.registry import by_name
from qtrain.layers.accumulator import Accumulator
from qtrain.layers.channels import ChannelQuantizer
from qtrain.layers.emulated import EmulatedQuantizer
from qtrain.layers.floating import AutogradUnit, PassThrough
from qtrain.layers.forward import ForwardQuantizer
from qtrain.layers.mac import MacQuantizers, MacUnit
from qtrain.layers.norms import NormQuantizers, norm_unit
from qtrain.layers.plan import NumberPlan
from qtrain.layers.pointwise import (
    ActivationUnit,
    AddUnit,
    AvgPoolUnit,
    ForkUnit,
    InputUnit,
    MaxPoolUnit,
    ShortcutUnit,
)
from qtrain.layers.quantizer import Quantizer
from qtrain.layers.steps import Step
from qtrain.pruners import Pruner

FORWARD_ROLES = ("weight", "output")
"""What Brevitas quantizes; everything else is only ever rounded by us."""
KIND = {"weight": "weight", "scale": "weight", "shift": "weight", "output": "activation", "error": "error",
        "error2": "error"}  # fmt: skip
"""Role of a point's numbers in the plan's rules; every other point is a gradient's."""


class _Points:
    """Makes the quantization points of a network and keeps them in order."""

    def __init__(self, plan: NumberPlan) -> None:
        self.plan = plan
        self.made: list[Quantizer] = []
        self.last = ""  # the layer whose output is the logits
        self.floating_norms = plan.floating  # normalizations compute in float32

    def point(self, layer: str, role: str, bits: int, *, signed: bool = True, scale: str | None = None,
              activation: str = "none") -> Callable[..., FixedTensor]:  # fmt: skip
        """A quantizer named `layer.role`, by the layer's formats and rules, or of the exponent rule `scale`; float32
        gets the one that changes nothing. Logits are fixed point in all plans but float32: the softmax is integer
        arithmetic."""
        kind, rules = KIND.get(role, "gradient"), self.plan.rules_for(layer)
        held = role in ("scale", "shift") or (role == "output" and layer == self.last)
        chosen = names.FIXED if held else self.plan.formats_for(layer).of(kind)
        if self.plan.floating or chosen == names.FLOAT32:
            return PassThrough(activation)
        name = f"{layer}.{role}"
        stream_id = zlib.crc32(name.encode())
        fmt, rounding, scale = FixedPoint(bits, signed), rules.rounding_of(kind), scale or rules.scale_of(kind)
        per_channel = role == "weight" and rules.per_channel
        if chosen != names.FIXED:
            if per_channel:
                raise QtrainError(
                    f"{name}: weight_granularity per-channel needs weight_format fixed, not {chosen}: the input error "
                    "sums over output channels, and only power-of-two scales can be aligned there"
                )
            other = by_name(names.at(chosen, bits))
            quantizer: Quantizer = EmulatedQuantizer(other, rounding, scale, stream_id, name, activation)
        elif per_channel:
            quantizer = ChannelQuantizer(fmt, rounding, scale, stream_id, name)
        elif role in FORWARD_ROLES:
            quantizer = ForwardQuantizer(fmt, rounding, scale, stream_id, name, role)
        else:
            quantizer = Quantizer(fmt, rounding, scale, stream_id, name)
        quantizer.whole = kind == "weight"
        self.made.append(quantizer)
        return quantizer


def build_units(steps: list[Step], plan: NumberPlan, pruner: Pruner) -> tuple[list[Any], list[Quantizer]]:
    """Units in order of execution, and their quantization points."""
    points = _Points(plan)
    unsigned: dict[str, bool] = {}
    units: list[Any] = []
    last = points.last = steps[-2].layer.name
    maps = [plan.formats_for(step.layer.name) for step in steps]
    points.floating_norms |= any({f.activation_format, f.error_format} != {names.FIXED} for f in maps)
    for step in steps:
        layer = step.layer
        widths = plan.for_layer(layer.name)
        positive = layer.activation in ("relu", "relu6")
        if layer.kind in ("maxpool", "avgpool", "shortcut", "fork"):
            positive = unsigned[layer.inputs[0]]
        unsigned[layer.name] = positive
        bits = widths.norm_bits if layer.normalized or layer.name == last else widths.activation_bits
        make = _unit if step.calls is None else _native_unit
        units.append(make(step, widths, bits, positive, points, pruner))
    return units, points.made


def _native_unit(step: Step, widths: Widths, bits: int, positive: bool, points: _Points, pruner: Pruner) -> Any:
    from qtrain.layers.native import NativeUnit

    if points.plan.widths.bi_precision:
        raise QtrainError(f"{step.layer.name}: Brevitas layers have one error map; leave out numbers.bi_precision")
    name = step.layer.name
    roles = ["error", "error2"][: max(len(step.layer.inputs), 1)]
    errors = [points.point(name, role, widths.error_bits) for role in roles]
    gradients = {
        parameter: points.point(
            name, f"{call.node.name}_{key.replace('.', '_')}_gradient", widths.gradient_bits
        )
        for call in step.calls or () if call.module is not None
        for key, parameter in call.module.named_parameters()
    }  # fmt: skip
    return NativeUnit(step, errors, gradients, pruner, zlib.crc32(name.encode()))


def _unit(step: Step, widths: Widths, bits: int, positive: bool, points: _Points, pruner: Pruner) -> Any:
    layer, name = step.layer, step.layer.name

    def output() -> Callable[..., FixedTensor]:
        # the logits are a handful: their own maximum costs nothing, and they grow fastest when training starts
        delayed = points.plan.rules_for(name).scale_of("activation") == "delayed"
        scale = "dynamic" if name == points.last and delayed else None
        return points.point(name, "output", bits, signed=not positive, scale=scale, activation=layer.activation)

    def error(role: str = "error") -> Callable[..., FixedTensor]:
        if points.plan.widths.bi_precision:
            return PassThrough()
        return points.point(name, role, widths.error_bits)

    def gradient(role: str) -> Callable[..., FixedTensor]:
        return points.point(name, role, widths.gradient_bits)

    if layer.kind in MAC_KINDS:
        assert isinstance(step.module, (nn.Conv2d, nn.Linear))
        weight = points.point(name, "weight", widths.weight_bits)
        sent = points.point(name, "error", widths.error_bits) if points.plan.widths.bi_precision else None
        quantizers = MacQuantizers(weight, output(), error(), gradient("gradient"), gradient("bias_gradient"), sent)
        accumulator = Accumulator(widths.accumulator_bits, points.plan.rules_for(name).accumulator)
        return MacUnit(layer, step.module, step.pad, quantizers, pruner, accumulator)
    if layer.kind in NORM_KINDS:
        assert step.module is not None
        if points.floating_norms:
            return AutogradUnit(layer, step.module, output(), error(), gradient)
        scale = points.point(name, "scale", widths.gamma_bits)
        shift = points.point(name, "shift", widths.beta_bits)
        gradients = gradient("scale_gradient"), gradient("shift_gradient")
        return norm_unit(layer, step.module, NormQuantizers(scale, shift, output(), error(), *gradients), widths)
    if layer.kind == "input":
        return InputUnit(layer, output())
    if layer.kind == "add":
        return AddUnit(layer, output())
    if layer.kind == "fork":
        return ForkUnit(layer, error())
    if layer.kind == "activation":
        return ActivationUnit(layer, output())
    if layer.kind == "maxpool":
        return MaxPoolUnit(layer, step.padding, error())
    if layer.kind == "avgpool":
        return AvgPoolUnit(layer, step.padding, output(), error())
    if layer.kind == "shortcut":
        return ShortcutUnit(layer, *_movers(step.moves))
    stored = PassThrough() if points.plan.widths.bi_precision else None
    return LossPoint(layer, stored or points.point(name, "error", widths.error_bits, scale="dynamic"))


class LossPoint:
    """The end of the network: where the loss's error enters and is quantized."""

    def __init__(self, layer: Any, error: Callable[..., FixedTensor]) -> None:
        self.name, self.layer, self.error = layer.name, layer, error


def _movers(moves: list[tuple[str, Any]]) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """The shortcut's copy and its transpose, from its chain of slices and zero paddings."""
    shapes: list[torch.Size] = []

    def move(x: Tensor) -> Tensor:
        shapes.clear()
        for kind, argument in moves:
            shapes.append(x.shape)
            x = x[argument] if kind == "slice" else F.pad(x, argument)
        return x

    def back(g: Tensor) -> Tensor:
        last = g.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        for (kind, argument), shape in zip(reversed(moves), reversed(shapes), strict=True):
            if kind == "slice":
                whole = g.new_zeros(g.shape[0], *shape[1:]).contiguous(memory_format=layout)
                whole[argument] = g
                g = whole
            else:
                g = F.pad(g, [-p for p in argument])
        return g

    return move, back
