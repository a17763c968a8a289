"""Batch normalization through the compiled kernels, on int8 codes: qtrain/layers/norms/batch.py in fewer passes."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qtrain.engine import kernels_for
from qtrain.engine.points import CodeTensor, Placed, accepts, learned, rule_of
from qtrain.formats.fixed import FixedTensor
from qtrain.formats.noise import step_key

_LIMITS = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}
"""The error passes where the stored output lies strictly between."""


@dataclass(slots=True)
class Record:
    """What a forward pass keeps for its backward pass besides the codes."""

    exponent: int
    constants: Tensor  # int64 [3, C]: mean m8, root, root's exponent
    affine: Tensor  # float32 [2, C]: gain and offset
    scale: FixedTensor
    n: int
    batch: bool
    output: int  # exponent of the output, to tell again where the activation passed
    cap: float
    library: ctypes.CDLL


def applies(unit: Any) -> bool:
    """Whether the kernels do what the quantization points of `unit` ask."""
    q = unit.q
    return (
        all(accepts(point) and point.monitor is None for point in (q.scale, q.shift, q.output, q.error))
        and q.error.format.max_code <= 127
        and q.output.rounding == "nearest-even"
        and unit.module.running_mean.dtype == torch.float32
    )


def forward(unit: Any, tape: Any, x: FixedTensor) -> FixedTensor | None:
    """The stored output of `unit` (a BatchNormUnit); None where the kernels do not apply."""
    if not isinstance(x, CodeTensor) or not applies(unit):
        return None
    module, channels = unit.module, x.packed.shape[1]
    carrier = torch.empty_like(x.packed, dtype=torch.float32)
    library = kernels_for(carrier)
    if library is None or x.exponent is None:
        return None
    n = x.packed.numel() // channels
    constants = torch.empty(3, channels, dtype=torch.int64)
    batch = unit.of_batch(tape, n)
    library.qt_norm_statistics(
        channels, x.sums.data_ptr() if batch else None, n, x.exponent, unit.epsilon(2 * x.exponent),
        round(unit.share * 2**16), module.running_mean.data_ptr(), module.running_var.data_ptr(),
        *(fmt.bits for fmt in unit.formats), constants.data_ptr(),
    )  # fmt: skip
    scale, shift = unit.parameters(tape)
    affine = torch.empty(2, channels)
    gain, offset = affine[0].data_ptr(), affine[1].data_ptr()
    library.qt_norm_affine(
        channels, constants.data_ptr(), scale.values.data_ptr(), scale.exponent, shift.values.data_ptr(),
        shift.exponent, gain, offset,
    )  # fmt: skip
    placed = Placed(x.packed, None, False)
    cap = 6.0 if unit.layer.activation == "relu6" else math.inf
    output = unit.q.output
    exponent = library.qt_norm(
        placed.x.data_ptr(), carrier.data_ptr(), gain, offset, rule_of(output), placed.at, tape.training, cap
    )
    learned(output, exponent, tape.training)
    record = Record(x.exponent, constants, affine, scale, n, batch, exponent, cap, library)
    tape.save(unit.name, (x.packed,), record)
    stored: FixedTensor = output.stored(FixedTensor(carrier, exponent))
    return stored


def took(unit: Any, tape: Any) -> bool:
    """Whether the forward pass on `tape` was made here."""
    return isinstance(tape.saved[unit.name][1][-1], Record)


def backward(unit: Any, tape: Any, error: FixedTensor, needed: bool) -> tuple[FixedTensor | None, ...]:
    """Parameter gradients, and the input's error where `needed`."""
    a, record = tape.take(unit.name)
    library = record.library
    assert error.exponent is not None
    point = unit.q.error
    stochastic = point.rounding == "stochastic"
    placed = Placed(a, tape.rows, stochastic)
    a = placed.x
    g = error.values.contiguous(memory_format=placed.layout)
    channels = a.shape[1]
    kept, sums = torch.empty_like(a), torch.zeros(channels, 2, dtype=torch.int64)
    gain, offset = record.affine[0].data_ptr(), record.affine[1].data_ptr()
    above, below = _LIMITS[unit.layer.activation]
    library.qt_norm_sums(
        g.data_ptr(), a.data_ptr(), kept.data_ptr(), sums.data_ptr(), gain, offset, math.ldexp(1.0, -error.exponent),
        above, below, rule_of(unit.q.output), record.output, record.cap, placed.at,
    )  # fmt: skip
    slopes = torch.empty(2, channels, dtype=torch.float64)
    pqr = torch.empty(3, channels)
    library.qt_norm_backward(
        channels, record.constants.data_ptr(), record.scale.values.data_ptr(), record.scale.exponent, sums.data_ptr(),
        record.n, record.batch, record.exponent, error.exponent, slopes[0].data_ptr(), slopes[1].data_ptr(),
        pqr[0].data_ptr(), pqr[1].data_ptr(), pqr[2].data_ptr(),
    )  # fmt: skip
    if unit.trains != "none":
        unit.store_gradients(slopes[0], slopes[1], tape)
    if not needed:
        return (None,)
    out = torch.empty_like(a, dtype=torch.float32)
    p, q, r = (row.data_ptr() for row in pqr)

    exponent = library.qt_norm_error(
        kept.data_ptr(), a.data_ptr(), out.data_ptr(), p, q, r, rule_of(point), placed.at,
        step_key(tape.clock.seed, tape.clock.step) if stochastic else 0,
    )  # fmt: skip
    return (point.stored(FixedTensor(out, learned(point, exponent, True))),)
