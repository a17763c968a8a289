"""A quantized network's inference as a plain module of Brevitas layers, bit for bit where float32 can be."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import torch
from torch import Tensor, nn

from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.brevitas import FixedPointWeight, SignedFixedPoint, UnsignedFixedPoint
from qtrain.layers.channels import ChannelQuantizer
from qtrain.layers.mac import MacUnit
from qtrain.layers.network import QuantizedNetwork
from qtrain.layers.norms.channel import ChannelNormUnit
from qtrain.layers.norms.group import GroupNormUnit
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


class Affine(nn.Module):
    """y = gain x + offset by channel: a folded normalization."""

    gain: Tensor
    offset: Tensor

    def __init__(self, gain: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain.float())
        self.register_buffer("offset", offset.float())

    def forward(self, x: Tensor) -> Tensor:
        view = (1, -1, *([1] * (x.dim() - 2)))
        return x * self.gain.view(view) + self.offset.view(view)


class Mean(nn.Module):
    """The mean of a whole image: its sum times the unit's rounded reciprocal."""

    def __init__(self, reciprocal: float) -> None:
        super().__init__()
        self.reciprocal = reciprocal

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((2, 3), keepdim=True) * self.reciprocal


class AddThen(nn.Module):
    """A residual sum and what is done to it: Sequential passes one value only."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.then = nn.Sequential(*modules)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.then(a + b)


class Move(nn.Module):
    """A shortcut's slices and zero channels."""

    def __init__(self, unit: ShortcutUnit) -> None:
        super().__init__()
        self.move = unit.move

    def forward(self, x: Tensor) -> Tensor:
        return self.move(x)


class ExportedNetwork(nn.Module):
    """Layers in order of execution, each with the names of those it reads; the last one's output is flattened."""

    def __init__(self, layers: list[tuple[str, nn.Module, tuple[str, ...]]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(module for _, module, _ in layers)
        self.wiring = [(name, inputs) for name, _, inputs in layers]

    def forward(self, images: Tensor) -> Tensor:
        values = {"": images}
        for module, (name, inputs) in zip(self.layers, self.wiring, strict=True):
            result = values[name] = module(*(values[i] for i in inputs or ("",)))
        return result.flatten(1)


def exportable(net: QuantizedNetwork) -> ExportedNetwork:
    """The inference of a trained `net`. Raises QtrainError where no step was trained."""
    layers: list[tuple[str, nn.Module, tuple[str, ...]]] = []
    source: dict[str, str] = {}  # forks only name the layer they read
    exponents: dict[str, int] = {}
    for unit in net.units[:-1]:
        inputs = tuple(source[name] for name in unit.layer.inputs)
        source[unit.name] = inputs[0] if isinstance(unit, ForkUnit) else unit.name
        before = exponents[inputs[0]] if inputs else 0
        if isinstance(unit, ForkUnit):
            continue
        stored = getattr(unit, "output", None) or getattr(getattr(unit, "q", None), "output", None)
        exponents[unit.name] = before if stored is None else held(stored)
        storing = [] if stored is None else _store(stored, unit.layer.activation)
        whole = AddThen(*storing) if isinstance(unit, AddUnit) else nn.Sequential(*_computation(unit, before), *storing)
        layers.append((unit.name, whole, inputs))
    return ExportedNetwork(layers)


def held(point: Quantizer) -> int:
    """The exponent a point uses at inference."""
    if point.amax is None:
        raise QtrainError(f"{point.name} has no exponent yet; train at least one step")
    return point.format.exponent_for(point.amax)


def _store(point: Quantizer, activation: str) -> list[nn.Module]:
    """The quantizer behind a layer, with its activation."""
    settings: dict[str, Any] = {"bit_width": point.format.bits, "exponent": held(point)}
    if point.format.signed:
        return [qnn.QuantIdentity(act_quant=SignedFixedPoint, **settings)]
    if activation == "relu":
        return [qnn.QuantReLU(act_quant=UnsignedFixedPoint, **settings)]
    clipped = [nn.ReLU6()] if activation == "relu6" else []
    return [*clipped, qnn.QuantIdentity(act_quant=UnsignedFixedPoint, **settings)]


def _computation(unit: Any, exponent: int) -> list[nn.Module]:
    """What the unit computes before it stores; `exponent` is its input's."""
    if isinstance(unit, MacUnit):
        return _product(unit, exponent)
    if isinstance(unit, GroupNormUnit):
        return [unit.inference_module()]
    if isinstance(unit, ChannelNormUnit):
        gain, offset = unit.inference_affine(exponent)
        return [Affine(gain, offset)]
    if isinstance(unit, AvgPoolUnit):
        windows = nn.AvgPool2d(unit.kernel, unit.stride, unit.padding)
        return [Mean(unit.reciprocal) if unit.whole else windows]
    if isinstance(unit, MaxPoolUnit):
        return [nn.MaxPool2d(unit.kernel, unit.stride, unit.padding)]
    if isinstance(unit, ShortcutUnit):
        return [Move(unit)]
    assert isinstance(unit, (InputUnit, ActivationUnit))
    return []


def _product(unit: MacUnit, exponent: int) -> list[nn.Module]:
    assert isinstance(unit.q.weight, Quantizer)
    if isinstance(unit.q.weight, ChannelQuantizer):
        raise QtrainError(f"{unit.name}: exponents per channel can't be exported; train with weights per-tensor")
    module, fmt = unit.module, unit.q.weight.format
    weight_exponent = unit.q.weight.held(learn=False)
    if weight_exponent is None:
        weight_exponent = fmt.exponent_for(float(module.weight.detach().abs().max()))
    settings: dict[str, Any] = {
        "bias": module.bias is not None,
        "weight_quant": FixedPointWeight, "weight_bit_width": fmt.bits, "weight_exponent": weight_exponent,
    }  # fmt: skip
    before: list[nn.Module] = [nn.ZeroPad2d(unit.pad)] if unit.pad else []  # type: ignore[arg-type]
    if isinstance(module, nn.Conv2d):
        own: Any = qnn.QuantConv2d(
            module.in_channels, module.out_channels, module.kernel_size, module.stride, module.padding,
            module.dilation, module.groups, **settings,
        )  # fmt: skip
    else:
        before = [nn.Flatten()]
        own = qnn.QuantLinear(module.in_features, module.out_features, **settings)
    own.weight.data = module.weight.detach().float().clone()
    carrier = torch.empty(0, dtype=torch.float64)
    bias = unit._bias_on_grid(FixedTensor(carrier, exponent), FixedTensor(carrier, weight_exponent))
    if bias is not None:
        own.bias.data = bias.float()
    return [*before, own]
