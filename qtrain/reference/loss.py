"""Softmax cross-entropy on logit codes, in Python's integers; the tables from decimal arithmetic."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from qtrain.reference.numbers import Stored, Wide

TABLE_BITS = 30
P_BITS = 24


def _table(step: int) -> list[int]:
    """round(2^(30 - i/step)) for i = 0..255."""
    with localcontext() as context:
        context.prec = 60
        ln2 = Decimal(2).ln()
        return [int(((TABLE_BITS - Decimal(i) / step) * ln2).exp().to_integral_value()) for i in range(256)]


def _log2_e() -> int:
    with localcontext() as context:
        context.prec = 60
        return int((Decimal(2**30) / Decimal(2).ln()).to_integral_value())


HIGH, LOW, LOG2_E = _table(256), _table(65536), _log2_e()


def probabilities(row: list[int], exponent: int) -> list[int]:
    """Softmax of logit codes x 2^exponent with 24 fraction bits."""
    powers = []
    for code in row:
        product = (max(row) - code) * LOG2_E
        shift = min(14 - exponent, 62)
        t = (product + (1 << (shift - 1))) >> shift if shift > 0 else product << min(-shift, 14)
        t = min(t, (1 << 40) - 1)
        powers.append(HIGH[(t >> 8) & 255] * LOW[t & 255] >> (TABLE_BITS + min(t >> 16, 31)))
    total = sum(powers)
    return [(power << P_BITS) // total for power in powers]


def error(logits: Stored, labels: NDArray[np.int64]) -> Wide:
    """p - 1 at the label, p elsewhere: [n, classes]."""
    rows = [probabilities(row, logits.exponent) for row in logits.codes.tolist()]
    codes = np.array(rows, dtype=np.int64)
    codes[np.arange(len(labels)), labels] -= 1 << P_BITS
    return Wide(codes, -P_BITS)
