"""Many small tensors as one vector, so that an operation on all of them costs one call."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream
from qtrain.formats.tiled import quantize_parts
from qtrain.layers.emulated import rounded

GROUP = 1 << 20
"""Elements of one vector: its scratch vectors then take less room than the activations, whatever the network's size."""


@dataclass(frozen=True, slots=True)
class Target:
    """How one of the tensors is stored. `exponent` is for fixed point."""

    format: Any
    rounding: str
    exponent: int
    stream: Stream


def grouped(names: list[str], sizes: list[int]) -> list[list[str]]:
    """`names` of tensors in groups of at most GROUP elements, or of a single larger tensor; order kept."""
    groups: list[list[str]] = []
    room = 0
    for name, size in zip(names, sizes, strict=True):
        if not groups or size > room:
            groups.append([])
            room = GROUP
        groups[-1].append(name)
        room -= size
    return groups


def joined(tensors: list[Tensor]) -> Tensor:
    """All elements in one float64 vector, each tensor's in row-major order."""
    return torch.cat([t.reshape(-1) for t in tensors]).double()


def parted(x: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    """The tensors that were joined in x, as views."""
    parts = x.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def magnitudes(x: Tensor, shapes: list[torch.Size]) -> list[float]:
    """The largest magnitude of each tensor in x."""
    starts = list(itertools.accumulate((shape.numel() for shape in shapes), initial=0))[:-1]
    found: list[float] = np.maximum.reduceat(x.abs().cpu().numpy(), starts).tolist()
    return found


def round_joined(x: Tensor, shapes: list[torch.Size], targets: list[Target]) -> Tensor:
    """Every tensor in x as its target stores it, joined: at once where all are rounded alike."""
    fmt = targets[0].format
    if x.is_cpu and {(t.format, t.rounding) for t in targets} == {(fmt, "stochastic")} and isinstance(fmt, FixedPoint):
        sizes, exponents = [shape.numel() for shape in shapes], [t.exponent for t in targets]
        return quantize_parts(x, sizes, exponents, fmt.max_code, [t.stream for t in targets])
    return joined([_stored(part, target) for part, target in zip(parted(x, shapes), targets, strict=True)])


def _stored(x: Tensor, target: Target) -> Tensor:
    if isinstance(target.format, FixedPoint):
        return target.format.quantize(x, target.exponent, target.rounding, target.stream)
    return rounded(target.format, x, target.rounding, target.stream)
