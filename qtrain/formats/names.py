"""The formats a role may be given, by name, and how wide they are. Needs no torch."""

from __future__ import annotations

import re
from typing import Any

from hwmodel.errors import unknown
from qtrain.errors import QtrainError

MINIFLOATS = {
    3: "e2m0-finite", 4: "e2m1", 5: "e3m1-finite", 6: "e3m2", 7: "e3m3-finite", 8: "e4m3",
    **{bits: f"e5m{bits - 6}" for bits in range(9, 16)}, 16: "float16",
}  # fmt: skip
"""The split that `minifloat` takes at each width: OCP's own at 4, 6 and 8 bits, IEEE's at 16; between them chosen here,
at least half of the bits for the exponent up to 8, five above."""
FAMILIES: dict[str, dict[int, str]] = {
    "fixed": {bits: f"fixed{bits}" for bits in range(2, 33)},
    "bfp": {bits: f"bfp{bits}" for bits in range(2, 17)},
    "int": {bits: f"int{bits}" for bits in range(2, 17)},
    "int-affine": {bits: f"int{bits}-affine" for bits in range(2, 17)},
    "minifloat": MINIFLOATS,
    "mx": {4: "mxfp4", 6: "mxfp6-e3m2", 8: "mxfp8-e4m3"},
}
"""Formats that take their width from the role, and the registry's name at each."""
OWN_BITS = {
    "float32": 32, "float16": 16, "bfloat16": 16, "mxfp8-e4m3": 8, "mxfp8-e5m2": 8, "mxfp6-e3m2": 6, "mxfp6-e2m3": 6,
    "mxfp4": 4, "mxint8": 8,
}  # fmt: skip
"""Formats that have a width of their own, besides every eXmY."""
FIXED, FLOAT32 = "fixed", "float32"


class Known(tuple[str, ...]):
    """The names that are listed; besides them it holds every eXmY of at most 16 bits."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and own_bits(name) is not None)


NAMES = Known((*FAMILIES, *OWN_BITS, "e4m3", "e5m2"))
"""What a role's format may be called."""


def own_bits(name: str) -> int | None:
    """The width of a format that has its own; None of a family's, and of an unknown name."""
    split = re.fullmatch(r"e([2-8])m(\d{1,2})", name)
    if split and 3 <= 1 + int(split[1]) + int(split[2]) <= 16:
        return 1 + int(split[1]) + int(split[2])
    return OWN_BITS.get(name)


def at(name: str, bits: int) -> str:
    """The registry's name of the format `name` in a role of `bits`: a format of its own width is what it is.

    Raises QtrainError for an unknown name and where a family has no such width.
    """
    if own_bits(name) is not None:
        return name
    if name not in FAMILIES:
        raise QtrainError(unknown("format", name, NAMES))
    if bits not in FAMILIES[name]:
        raise QtrainError(f"format {name} has no {bits} bits (valid: {', '.join(map(str, FAMILIES[name]))})")
    return FAMILIES[name][bits]


def width(name: str, bits: int) -> int:
    """Bits of an element of the format `name` in a role of `bits`."""
    return own_bits(name) or bits


def with_widths(values: dict[str, Any], roles: tuple[str, ...]) -> dict[str, Any]:
    """`values` with the shorthand "format" written out for every one of `roles`, and the width of each format that has
    its own written beside it unless given. Unknown names are left for the check of their key."""
    values = dict(values)
    if "format" in values:
        values = dict.fromkeys((f"{role}_format" for role in roles), values.pop("format")) | values
    for key in [key for key in values if key.endswith("_format") and isinstance(values[key], str)]:
        own = own_bits(values[key])
        if own is not None and values[key] != FLOAT32:
            values.setdefault(key.replace("_format", "_bits"), own)
    return values
