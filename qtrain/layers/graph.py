"""From a plain nn.Module to the list of layers it is: torch.fx traces it, qtrain.layers.builder makes the steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from hwmodel.network import Network
from qtrain.errors import QtrainError
from qtrain.layers.builder import Builder
from qtrain.layers.nodes import NORM
from qtrain.layers.steps import Step


def is_brevitas(model: nn.Module) -> bool:
    """Whether `model` contains layers of Brevitas, which then run by their own code (qtrain.layers.native)."""
    return any(m.__module__.startswith("brevitas.nn") for m in model.modules())


class _Tracer(fx.Tracer):
    """In a Brevitas model its layers, and modules with parameters of their own, stay whole besides PyTorch's."""

    def __init__(self, native: bool, device: torch.device) -> None:
        super().__init__()
        self.native, self.device = native, device

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = self.native and any(True for _ in m.parameters(recurse=False))
        whole = own or type(m) in NORM or m.__module__.startswith("brevitas.nn")
        return whole or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        proxy = super().proxy(node)
        proxy.device = self.device  # type: ignore[attr-defined]  # `torch.tensor(..., device=x.device)` in a forward needs a real one
        return proxy


class _Shapes(fx.Interpreter):
    """Runs the traced model and notes the shape of every tensor at its node (Brevitas' tensors included)."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        tensor = getattr(result, "value", result)
        if isinstance(tensor, torch.Tensor):
            n.meta["shape"] = tuple(tensor.shape)
        return result


def trace(model: nn.Module, input_shape: tuple[int, ...], name: str) -> tuple[list[Step], Network]:
    """Steps and shapes of `model` for instances of `input_shape` (C, H, W).

    Raises QtrainError naming the layer that can't be simulated and why.
    """
    native, device = is_brevitas(model), _device(model)
    try:
        graph = _Tracer(native, device).trace(model)
        gm = fx.GraphModule(model, graph)
        was_training = model.training
        gm.eval()
        with torch.no_grad():
            _Shapes(gm).run(torch.zeros(2, *input_shape, device=device))
        gm.train(was_training)
    except QtrainError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise QtrainError(
            f"{name}: the model can't be traced for input {input_shape}: {reason}; its forward must not branch on data "
            "and must fit the input shape (--input-shape)"
        ) from error
    builder = Builder(gm, name)
    if native:
        from qtrain.layers.native_graph import NativeBuilder

        builder = NativeBuilder(gm, name)
    for node in graph.nodes:
        if "shape" in node.meta or node.op == "output":  # the others are sizes, read by a view
            builder.visit(node)
    return builder.finish()


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
