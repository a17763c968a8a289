"""Normalizations: statistics, gradient of the scale and input error of each kind."""

from types import ModuleType

from qtrain.reference.norms import channel, group
from qtrain.reference.norms.constants import error_sums, forward

OF_KIND: dict[str, ModuleType] = {
    "batchnorm": channel,
    "frozennorm": channel,
    "rangenorm": channel,
    "groupnorm": group,
}

__all__ = ["OF_KIND", "error_sums", "forward"]
