"""What the nodes of a traced model mean: which calls are which kind of layer, and their shapes and arguments."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from qtrain.errors import QtrainError
from qtrain.layers.norms import modules as norms

RELU = {nn.ReLU: "relu", nn.ReLU6: "relu6", F.relu: "relu", torch.relu: "relu", F.relu6: "relu6", "relu": "relu",
         "relu_": "relu"}  # fmt: skip
ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
FLATTEN = {nn.Flatten, torch.flatten, "flatten", "view", "reshape"}
SKIP = {nn.Identity, "contiguous"}
PAD = {nn.ZeroPad2d, nn.ConstantPad2d, F.pad}
MAX = {nn.MaxPool2d, F.max_pool2d, torch.max_pool2d}
AVG = {nn.AvgPool2d, F.avg_pool2d}
ADAPTIVE = {nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d}
NORM = norms.KINDS
MAC = {nn.Conv2d: "conv", nn.Linear: "linear"}
DROPOUT = {nn.Dropout, nn.Dropout2d, F.dropout}


def n_readers(node: fx.Node) -> int:
    """How many operations read the node's values (not merely its sizes)."""
    return sum("shape" in user.meta or user.op == "output" for user in node.users)


def shape_of(node: fx.Node) -> tuple[int, int, int]:
    """(C, H, W) of one instance of the node's tensor; vectors have height and width 1."""
    shape = node.meta["shape"][1:]
    if len(shape) == 1:
        return int(shape[0]), 1, 1
    if len(shape) != 3:
        raise QtrainError(
            f"{node.name}: tensors must be [n, C, H, W] or [n, features], got {len(shape) + 1} dimensions"
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


def pad_widths(node: fx.Node, module: nn.Module | None) -> tuple[int, ...]:
    """Zeros added before and after, last dimension first. Raises QtrainError for padding that is not zero."""
    widths: Any
    if module is not None:
        value, widths = getattr(module, "value", 0), module.padding
    else:
        arguments = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | dict(node.kwargs)
        value = 0 if arguments.get("mode", "constant") == "constant" else 1
        value = arguments.get("value") or value
        widths = arguments["pad"]
    if value:
        raise QtrainError(f"{node.name}: only zero padding is supported")
    return tuple(int(w) for w in widths)


def pool_window(node: fx.Node, module: nn.Module | None) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """(kernel, stride, padding) of a pooling call or module."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    if module is not None:
        arguments: dict[str, Any] = {n: getattr(module, n) for n in names[1:] if hasattr(module, n)}
    else:
        arguments = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if arguments.get("ceil_mode") or pair(arguments.get("dilation", 1)) != (1, 1):
        raise QtrainError(f"{node.name}: pooling with ceil_mode or dilation is not supported")
    kernel = pair(arguments["kernel_size"])
    return kernel, pair(arguments.get("stride") or kernel), pair(arguments.get("padding", 0))


def mean_window(node: fx.Node, source: fx.Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """The same of a mean. Raises QtrainError unless it is over the whole image."""
    _, height, width = shape_of(source)
    if shape_of(node)[1:] != (1, 1):
        raise QtrainError(f"{node.target}: only a mean over the whole image is supported")
    return (height, width), (height, width), (0, 0)


def pair(value: Any) -> tuple[int, int]:
    """A number for both dimensions, or one for each."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
