"""One training step of each variant that benchmarks/speed.py compares."""

from __future__ import annotations

import importlib.util

OURS = ("compiled", "torch")
LR, MOMENTUM, DECAY = 0.05, 0.9, 1e-4
BITS, FRACTION = 8, 6
"""QPyTorch's fixed point has no exponent of its own; its bits behind the point, of all tensors."""


def available(variant: str) -> bool:
    """Whether what a variant needs is installed."""
    needs = {"brevitas": "brevitas", "qpytorch": "qtorch"}.get(variant)
    return needs is None or importlib.util.find_spec(needs) is not None


def inputs(model: str, batch: int, device: str):
    """(what is known of a model, random images, random labels)."""
    import torch

    from qtrain.models import info

    about = info(model)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *about.input_shape, generator=generator)
    labels = torch.randint(0, about.n_classes, (batch,), generator=generator)
    return about, x.to(device), labels.to(device)


def make_step(variant: str, model: str, batch: int, device: str):
    """A function that does one training step of `variant`."""
    import torch
    import torch.nn.functional as F

    from qtrain.models import build

    if variant in OURS:
        return our_network(variant, model, batch, device)[1]
    _, x, labels = inputs(model, batch, device)
    module = build(model, seed=0).to(device)
    if variant == "brevitas":
        with_brevitas(module)
    optimizer = torch.optim.SGD(module.parameters(), LR, MOMENTUM, weight_decay=DECAY)
    if variant == "qpytorch":
        optimizer = with_qpytorch(module, optimizer)
    if variant == "channels_last":
        module, x = module.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    run = torch.compile(module) if variant == "compile" else module

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=variant == "bf16"):
            loss = F.cross_entropy(run(x), labels)
        loss.backward()
        optimizer.step()

    return step


def our_network(engine_name: str, model: str, batch: int, device: str = "cpu"):
    """(network, a function that does one of its training steps) at 8 bits."""
    import torch

    from qtrain import engine
    from qtrain.layers import NumberPlan, quantize
    from qtrain.layers.loss import cross_entropy
    from qtrain.layers.optimizer import FixedSGD
    from qtrain.layers.quantizer import Clock
    from qtrain.models import build

    engine.use(engine_name)
    about, x, labels = inputs(model, batch, device)
    net = quantize(build(model, seed=0).to(device), about.input_shape, NumberPlan.fixed(8), name=about.name)
    net.memory_format = torch.channels_last
    optimizer = FixedSGD(net, LR, MOMENTUM, DECAY)

    def step() -> None:
        logits, tape = net.run(x)
        _, error, scale = cross_entropy(logits, labels)
        net.run_back(tape, net.logit_error(error, tape))
        optimizer.step(Clock(0, net.step), scale)
        net.step += 1

    return net, step


def with_brevitas(module) -> None:
    """Swap convolutions, linear layers and ReLUs for Brevitas' 8-bit fixed-point ones, in place."""
    import brevitas.nn as qnn
    from brevitas.quant import Int8WeightPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
    from torch import nn

    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            new = qnn.QuantConv2d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding,
                groups=child.groups, bias=child.bias is not None, weight_quant=Int8WeightPerTensorFixedPoint,
            )  # fmt: skip
        elif isinstance(child, nn.Linear):
            new = qnn.QuantLinear(
                child.in_features, child.out_features, child.bias is not None,
                weight_quant=Int8WeightPerTensorFixedPoint,
            )  # fmt: skip
        elif isinstance(child, nn.ReLU):
            new = qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint)
        else:
            with_brevitas(child)
            continue
        setattr(module, name, new)


def with_qpytorch(module, optimizer):
    """Quantize every layer's output and error by QPyTorch, in place; returns the optimizer that quantizes weights,
    gradients and momentum."""
    from qtorch import FixedPoint
    from qtorch.optim import OptimLP
    from qtorch.quant import Quantizer, quantizer
    from torch import nn

    number, wide = FixedPoint(BITS, FRACTION), FixedPoint(16, 14)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.ReLU)):
                point = Quantizer(number, number, forward_rounding="nearest", backward_rounding="stochastic")
                setattr(parent, name, nn.Sequential(child, point))
    rounded, exact = (quantizer(n, forward_rounding="stochastic") for n in (number, wide))
    return OptimLP(optimizer, weight_quant=exact, grad_quant=rounded, momentum_quant=exact)
