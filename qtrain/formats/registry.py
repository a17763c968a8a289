"""Formats by name: fixed8, fixed8-channel, int8, int8-affine, int8-channel, bfp8, e4m3 (any eXmY), mxfp4, float16..."""

from __future__ import annotations

import re
from collections.abc import Callable

from hwmodel.errors import unknown
from qtrain.errors import QtrainError
from qtrain.formats import minifloat as mf
from qtrain.formats.base import Format
from qtrain.formats.block import BlockFloat, Microscaling
from qtrain.formats.scaled import OwnFixedPoint, ScaledInteger

WIDTHS = range(2, 17)

NAMED: dict[str, Format] = {
    "float32": mf.FLOAT32, "float16": mf.FLOAT16, "bfloat16": mf.BFLOAT16, "e4m3": mf.E4M3, "e5m2": mf.E5M2,
    "e3m2": mf.E3M2, "e2m3": mf.E2M3, "e2m1": mf.E2M1,
    "mxfp8-e4m3": Microscaling(mf.E4M3), "mxfp8-e5m2": Microscaling(mf.E5M2), "mxfp6-e3m2": Microscaling(mf.E3M2),
    "mxfp6-e2m3": Microscaling(mf.E2M3), "mxfp4": Microscaling(mf.E2M1), "mxint8": Microscaling(None),
}  # fmt: skip
FAMILIES: dict[str, Callable[[int], Format]] = {
    "fixed{}": OwnFixedPoint,
    "fixed{}-channel": lambda bits: OwnFixedPoint(bits, axis=0),
    "int{}": ScaledInteger,
    "int{}-affine": lambda bits: ScaledInteger(bits, affine=True),
    "int{}-channel": lambda bits: ScaledInteger(bits, axis=0),
    "bfp{}": BlockFloat,
}


def names() -> tuple[str, ...]:
    """Every name of a fixed list; besides these, eXmY names the IEEE-like minifloat of X exponent, Y mantissa bits,
    eXmY-finite the one without infinities and NaN."""
    return (*NAMED, *(family.format(bits) for family in FAMILIES for bits in WIDTHS))


def by_name(name: str) -> Format:
    """The format called `name`. Raises QtrainError with the nearest name."""
    if name in NAMED:
        return NAMED[name]
    for family, make in FAMILIES.items():
        found = re.fullmatch(family.format(r"(\d+)"), name)
        if found and int(found[1]) in WIDTHS:
            return make(int(found[1]))
    split = re.fullmatch(r"e(\d)m(\d+)(-finite)?", name)
    if split:
        try:
            return mf.Minifloat(int(split[1]), int(split[2]), "finite" if split[3] else "ieee")
        except ValueError as error:
            raise QtrainError(f"format {name}: {error}; use 2 to 8 exponent and 0 to 23 mantissa bits") from error
    raise QtrainError(unknown("format", name, names()))
