"""What stands for several keys of [numbers] at once: plans, and the shorthands bits and format."""

from collections.abc import Mapping
from typing import Any

from hwmodel.errors import shown
from qtrain.errors import QtrainError
from qtrain.experiment.sections import ROLES, WIDTH, Numbers
from qtrain.formats import names

ROLE_WIDTHS = tuple(f"{role}_bits" for role in ROLES)


PRESETS: dict[str, dict[str, Any]] = {
    "niti8": dict.fromkeys((*ROLE_WIDTHS, "master_bits", "norm_bits"), 8) | {"scale": "dynamic", "update": "shift"},
    "banner8": dict.fromkeys((*ROLE_WIDTHS, "norm_bits"), 8)
    | dict.fromkeys(("weight_format", "activation_format", "error_format"), "int-affine")
    | dict.fromkeys(("gradient_format", "master_format", "momentum_format"), names.FLOAT32)
    | {"activation_scale": "moving-average", "error_scale": "dynamic", "bi_precision": True},
}
"""What a plan says of the other keys when it is chosen; keys given besides win.

niti8: Wang et al. 2020, "NITI: Training Integer Neural Networks Using Integer-only Arithmetic", arXiv 2009.13108: int8
tensors with one exponent of their own maximum, 32-bit sums, weights that are their own master, no momentum.
banner8: Banner et al. 2018, "Scalable Methods for 8-bit Training of Neural Networks", arXiv 1805.11046: integers
between smallest and largest value, averaged for activations; errors rounded stochastically for the input error alone;
range normalization; masters in float32.
"""
COMPANIONS: dict[str, dict[str, dict[str, Any]]] = {
    "niti8": {"optimizer": {"momentum": 0.0, "weight_decay": 0.0}, "filter": {"momentum": 0.0}},
    "banner8": {"train": {"norm": "range"}},
}
"""What a plan says of other sections when it is chosen; keys given besides win."""


def chosen(plan: object, before: str) -> dict[str, Any]:
    """Keys of [numbers] that a change of plan sets: those of the plan left go back to their defaults.

    None for what is no plan's name: the option itself refuses that.
    """
    if plan == before or not isinstance(plan, str):
        return {}
    return {key: getattr(Numbers, key) for key in PRESETS.get(before, {})} | PRESETS.get(plan, {})


def bits(n: object) -> dict[str, object]:
    """The keys of [numbers] that the shorthand `bits` stands for; raises QtrainError unless there are any.

    2 to 16 sets the four roles' widths, and above 8 that of what a normalization reads, which would otherwise
    be the narrowest place of the network; 32 means float32 everywhere.
    """
    plan: dict[str, object] = {"plan": "float32"} if n == 32 else {}
    width = Numbers.weight_bits if plan else n
    if type(n) is not int or type(width) is not int or width not in WIDTH:
        raise QtrainError(f"numbers.bits (--bits) = {shown(n)}: must be 2 to 16, or 32 for float32")
    return plan | dict.fromkeys(ROLE_WIDTHS, width) | {"norm_bits": max(Numbers.norm_bits, width)}


def written_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of [numbers] with the shorthands "bits" and "format" written out; keys given besides win.

    Raises QtrainError for a width or a format that does not exist.
    """
    given = dict(values)
    shorthand = {"format": given.pop("format")} if "format" in given else {}
    widths = bits(given.pop("bits")) if "bits" in given else {}
    return names.with_widths(shorthand, ROLES) | widths | names.with_widths(given, ROLES)
