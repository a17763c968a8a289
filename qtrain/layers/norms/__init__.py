"""Normalizations: a torch module and an integer unit each, found by the kind of layer they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hwmodel.operations import Layer, Widths
from qtrain.layers.norms.base import NormQuantizers, NormUnit
from qtrain.layers.norms.batch import BatchNormUnit
from qtrain.layers.norms.group import GroupNormUnit
from qtrain.layers.norms.range import RangeNormUnit

UNITS: dict[str, Callable[[Layer, Any, NormQuantizers, Widths], NormUnit]] = {
    "batchnorm": BatchNormUnit,
    "frozennorm": BatchNormUnit,
    "groupnorm": GroupNormUnit,
    "rangenorm": RangeNormUnit,
}

__all__ = ["NormQuantizers", "NormUnit", "norm_unit"]


def norm_unit(layer: Layer, module: Any, q: NormQuantizers, widths: Widths) -> NormUnit:
    """The fixed-point unit of `layer`'s kind."""
    return UNITS[layer.kind](layer, module, q, widths)
