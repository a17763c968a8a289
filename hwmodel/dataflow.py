"""How a PE array runs a loop nest: cycles, and the elements that move between its registers, buffer and
backing store.

Weight- and output-stationary arrays are systolic: a matrix product [pixels, reduction] x [reduction, k] in
folds of rows x cols (Samajdar et al., SCALE-Sim, ISPASS 2020, eq. 3). Row-stationary is in
hwmodel.row_stationary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from hwmodel.nests import Nest

SUMS_SHARE = 7 / 8
"""Share of the buffer that sums may fill while operands stream through the rest."""


@dataclass(frozen=True, slots=True)
class Array:
    """Shape of a PE array, its register files in elements, its buffer in bytes and bytes per cycle of the array."""

    dataflow: str
    rows: int
    cols: int
    input_registers: int
    filter_registers: int
    sum_registers: int
    buffer_bytes: int
    element_bytes: float
    sum_bytes: float
    output_cycles: float = 0.0
    filter_bytes: float = 2.0
    buffer_rate: float = math.inf


@dataclass(frozen=True, slots=True)
class Mapped:
    """A nest on an array. `cycles` at full supply; elements read and written at each level, by operand.

    `array_*` are elements that enter or pass between PEs, `buffer_*` those that leave or enter the buffer;
    `buffer_sums` counts reads and writes of partial sums, the final write included.
    """

    cycles: float
    active_pes: float
    array_elements: float
    buffer_inputs: float
    buffer_filters: float
    buffer_sums: float


def ceil_div(a: int, b: int) -> int:
    """The quotient rounded up."""
    return -(-a // b)


def weight_stationary(nest: Nest, array: Array) -> Mapped:
    """Filters rest in the PEs (rows = reduction, cols = k); pixels stream through; sums leave after each
    row fold."""
    row_folds, col_folds = ceil_div(nest.reduction, array.rows), ceil_div(nest.k, array.cols)
    cycles = row_folds * col_folds * (2 * array.rows + array.cols + nest.pixels - 2)
    outputs = nest.pixels * nest.k
    return Mapped(
        cycles=nest.groups * cycles,
        active_pes=nest.reduction * nest.k / (row_folds * col_folds),
        array_elements=2.0 * nest.macs,  # each PE hands its input on and its sum down
        buffer_inputs=nest.groups * nest.pixels * nest.reduction * col_folds,
        buffer_filters=nest.n_filter,
        buffer_sums=nest.groups * outputs * (2 * row_folds - 1),
    )


def output_stationary(nest: Nest, array: Array) -> Mapped:
    """Sums rest in the PEs (rows = pixels, cols = k) while inputs and filters stream through; they leave
    once."""
    row_folds, col_folds = ceil_div(nest.pixels, array.rows), ceil_div(nest.k, array.cols)
    cycles = row_folds * col_folds * (2 * array.rows + array.cols + nest.reduction - 2)
    return Mapped(
        cycles=nest.groups * cycles,
        active_pes=nest.pixels * nest.k / (row_folds * col_folds),
        array_elements=2.0 * nest.macs,  # each PE hands both operands on
        buffer_inputs=nest.groups * nest.pixels * nest.reduction * col_folds,
        buffer_filters=nest.n_filter * row_folds,
        buffer_sums=nest.n_output,
    )


@lru_cache(maxsize=10_000)
def backing_bytes(nest: Nest, array: Array, input_b: float, filter_b: float, output_b: float) -> float:
    """Bytes that cross between buffer and backing store, at `input_b`, `filter_b`, `output_b` bytes an
    element.

    Of three orders the least: filters wait in half the buffer, the other half loading, and inputs pass once per load;
    inputs wait and filters pass; sums wait (a tile of filters x pixels, which needs no second copy) and both pass.
    Never below one transfer of each operand.
    """
    half = array.buffer_bytes / 2
    inputs, filters, outputs = nest.n_input * input_b, nest.n_filter * filter_b, nest.n_output * output_b
    if nest.follows and inputs <= half:  # it is still there
        inputs = 0.0
    filters_wait = inputs * max(1.0, -(-filters // half)) + filters
    inputs_wait = inputs + filters * max(1.0, -(-inputs // half))
    best = min(filters_wait, inputs_wait)
    turns = 1  # halves, quarters, ... of the filters: at each number of turns one filter more never moves fewer bytes
    while turns < 2 * nest.k:
        pixel_tile = max(1, int(SUMS_SHARE * array.buffer_bytes / (ceil_div(nest.k, turns) * array.sum_bytes)))
        best = min(best, inputs * turns + filters * ceil_div(nest.pixels, pixel_tile))
        turns *= 2
    return best + outputs
