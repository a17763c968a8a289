"""Layers that compute in low-bit numbers forwards and backwards, and record what they did."""

from qtrain.layers.network import QuantizedNetwork, quantize
from qtrain.layers.plan import NumberPlan

__all__ = ["NumberPlan", "QuantizedNetwork", "quantize"]
