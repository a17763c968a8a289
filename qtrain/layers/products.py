"""Sums of products of a conv or linear layer, exact where its operands are fixed point: forward and backward."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwmodel.operations import Layer
from qtrain.engine.channels import gather
from qtrain.formats.fixed import FixedTensor

Sums = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Input error, weight gradient and bias gradient, where asked for."""
SIMD_LANES = 16
"""Output channels a block of oneDNN's float32 kernels holds with AVX-512."""


@dataclass(frozen=True, slots=True)
class Products:
    """How a layer's operands meet; without a stride it is linear. `pad` are the zeros put around its input before the
    convolution's own padding."""

    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    pad: tuple[int, ...] = ()

    @classmethod
    def of(cls, module: Any, pad: tuple[int, ...]) -> Products:
        if not isinstance(module, nn.Conv2d):
            return cls(pad=pad)
        return cls(module.stride, module.padding, module.dilation, module.groups, pad)  # type: ignore[arg-type]

    def forward(self, source: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """source: the padded input [n, C, H, W], or [n, features]."""
        if not self.stride:
            return F.linear(source, weight, bias)
        return F.conv2d(source, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def back(self, delta: Tensor, source: Tensor, weight: Tensor, mask: tuple[bool, bool, bool]) -> Sums:
        """The three sums of the backward pass, those in `mask`."""
        if not self.stride:
            return (
                delta @ weight if mask[0] else None,
                delta.t() @ source if mask[1] else None,
                delta.sum(0) if mask[2] else None,
            )
        delta = delta.contiguous(memory_format=_memory_format(source))
        d_input, d_weight, d_bias = torch.ops.aten.convolution_backward(
            delta, source, weight, [weight.shape[0]] if mask[2] else None,
            list(self.stride), list(self.padding), list(self.dilation), False, [0, 0], self.groups, list(mask),
        )  # fmt: skip
        if d_input is not None and self.pad:
            d_input = F.pad(d_input, tuple(-p for p in self.pad))
        return d_input, d_weight, d_bias

    def back_in_parts(
        self, delta: Tensor, source: Tensor, weight: Tensor, mask: tuple[bool, bool, bool], fits: bool,
        parts: list[tuple[int, int]],
    ) -> Sums:  # fmt: skip
        """`back` where the carrier may not hold all sums: the input error in float64 unless it `fits`, the weight
        gradient in `parts` of the batch (none: in float64), added in float64."""
        d_input = d_weight = d_bias = None
        if mask[0]:
            d, w = (delta, weight) if fits else (delta.double(), weight.double())
            d_input, _, _ = self.back(d, source.to(d.dtype), w, (True, False, False))
        if mask[1]:
            d, x = delta, source
            if not parts:
                d, x, parts = d.double(), x.double(), [(0, len(d))]
            sums = [self.back(d[a:b], x[a:b], weight.to(d.dtype), (False, True, False))[1] for a, b in parts]
            d_weight = torch.stack([part.double() for part in sums if part is not None]).sum(0)
        if mask[2]:
            d_bias = delta.transpose(0, 1).flatten(1).sum(1, dtype=torch.float64)
        return d_input, d_weight, d_bias


def gathers(layer: Layer, n_kept: int, needed: bool) -> bool:
    """Whether a smaller convolution of the kept channels alone repays copying their error: the input error's takes time
    in proportion, the weight gradient's by blocks of SIMD_LANES (benchmarks/shrink.py --layers). A depthwise one reads
    an element little oftener than the copy does."""
    if layer.groups > 1 and layer.groups == layer.in_channels:
        return False
    return needed or math.ceil(n_kept / SIMD_LANES) < math.ceil(layer.out_channels / SIMD_LANES)


def without(delta: Tensor, weight: FixedTensor, channels: Tensor, *, gathered: bool) -> tuple[Tensor, FixedTensor]:
    """The error and the weights of the kept output `channels`; or, not gathered, the whole error beside weights that
    are zero for the others, so that these add nothing to the input error."""
    if gathered:
        return gather(delta, channels), FixedTensor(weight.values[channels], weight.exponent)
    kept = torch.zeros_like(weight.values).index_copy_(0, channels, weight.values[channels])
    return delta, FixedTensor(kept, weight.exponent)


def _memory_format(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
