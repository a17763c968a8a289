"""GAP9's Neural Engine (github.com/pulp-platform/ne16): 3 x 3 outputs of 32 filters a tile, 16 channels at a time.

Filters are bit-serial in the 3 x 3 and depthwise modes and bit-parallel in the 1 x 1 and linear mode, so narrower
filters are faster in the first two only. A tile loads its input patch, multiplies filter by filter, then normalizes and
streams its outputs over a 256-bit port.
"""

from __future__ import annotations

from hwmodel.dataflow import Array, Mapped, ceil_div
from hwmodel.nests import Nest

TILE, FILTERS, CHANNELS = 3, 32, 16
"""Pixels along a side, filters and channels of a tile."""
LATENCY_CYCLES = 6
"""Of each first-in-first-out buffer between memory and engine."""
PORT_BYTES = 32
DMA_BYTES = 8
"""Bytes a cycle from the second-level memory: filters are brought in before a layer starts."""
NORMALIZERS = 4
"""Outputs scaled at a time."""


def supports(nest: Nest) -> bool:
    """Whether the engine has a mode for the nest: 1 x 1, 3 x 3 (dense or depthwise), or linear.

    Filters wider than 8 bit are run as the sum of their 8-bit parts, which is as many serial bits.
    """
    dense = nest.groups == 1 or nest.k == nest.c == 1
    return dense and (nest.r, nest.s) in ((1, 1), (3, 3)) and nest.stride in (1, 2)


def ne16(nest: Nest, array: Array) -> Mapped:
    """Cycles by tile: for each 16 channels load the patch and multiply; then normalize and stream out."""
    side = TILE if nest.stride == 1 else 2  # a strided tile has 2 x 2 outputs
    if nest.p == nest.q == 1:
        side = 1
    tiles = nest.n * ceil_div(nest.p, side) * ceil_div(nest.q, side)
    patch = ((side - 1) * nest.stride + nest.r) ** 2
    bits = nest.filter_bits if nest.r == 3 else ceil_div(nest.filter_bits, 8)
    outputs = side * side
    if nest.k == nest.c == 1:  # depthwise: 16 groups side by side, one channel each
        blocks, filters, depth = ceil_div(nest.groups, CHANNELS), min(nest.groups, CHANNELS), 1
    else:
        blocks, filters, depth = ceil_div(nest.k, FILTERS), min(nest.k, FILTERS), ceil_div(nest.c, CHANNELS)
    multiply = depth * (LATENCY_CYCLES + patch + LATENCY_CYCLES + filters * bits)
    normalize = LATENCY_CYCLES + outputs * ceil_div(filters, NORMALIZERS)
    stream = LATENCY_CYCLES + outputs * ceil_div(filters * nest.output_bits, 8 * PORT_BYTES)
    filter_bytes = nest.n_filter * nest.filter_bits / 8
    cycles = tiles * blocks * (multiply + normalize + stream) + filter_bytes / DMA_BYTES
    return Mapped(
        cycles=cycles,
        active_pes=nest.macs / cycles,
        array_elements=0.0,
        buffer_inputs=float(tiles * blocks * depth * patch * CHANNELS),
        buffer_filters=float(nest.n_filter * tiles),
        buffer_sums=float(nest.n_output),
    )
