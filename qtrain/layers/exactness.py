"""What of a network can't be proved bit for bit against the integer reference, and why."""

from __future__ import annotations

from collections.abc import Sequence

from hwmodel.operations import MAC_KINDS, NORM_KINDS, Layer
from qtrain.formats.names import FIXED
from qtrain.layers.plan import NumberPlan


def not_verifiable(plan: NumberPlan, layers: Sequence[Layer]) -> str:
    """Why no integer reference of a plan exists, in a few words; empty where one does."""
    if plan.floating:
        return "float sums depend on their order"
    if plan.widths.bi_precision:
        return "its weight gradient is not quantized"
    unusual = dict.fromkeys(plan.formats_for(layer.name).unusual for layer in layers)
    found = next((formats for formats in unusual if formats), "")
    return found and f"{found}: only sums of fixed-point numbers have an integer definition"


def inexact(plan: NumberPlan, layers: Sequence[Layer]) -> dict[str, str]:
    """Layer -> why its arithmetic isn't exact; exact layers left out. A layer that is exact itself may still read what
    one that isn't has made."""
    found = {}
    norms_float = not plan.floating and any(
        {(f := plan.formats_for(layer.name)).activation_format, f.error_format} != {FIXED} for layer in layers
    )
    for layer in layers:
        parts = ["all float32" if plan.floating else plan.formats_for(layer.name).unusual]
        makers = {plan.formats_for(name).activation_format for name in layer.inputs} - {FIXED}
        parts += [f"input {name}" for name in sorted(makers) if layer.kind in MAC_KINDS and not plan.floating]
        if norms_float and layer.kind in NORM_KINDS:
            parts.append("computed in float32")
        if any(parts):
            found[layer.name] = ", ".join(filter(None, parts))
    return found
