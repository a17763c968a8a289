"""Arm's Ethos-U55: ublocks of outputs whose sums stay while channels pass, a step of filters decoded at a time.

The timing is that of Vela 5.2.0's performance model (github.com/nxp-imx/ethos-u-vela), restated: which of its terms
matter was found by comparing layer by layer (benchmarks/accelerators).
"""

from __future__ import annotations

from collections import Counter

from hwmodel.dataflow import Array, Mapped, ceil_div
from hwmodel.nests import Nest

STEP_CYCLES = 4
"""Cycles in which an Ethos-U55 multiplies one ublock with a step of filters (Vela's performance model)."""
STEP_CHANNELS = 32
"""Channels of one tap in a depth-first step, for a ublock depth of 8."""
PART_TAPS, PART_CHANNELS = 4, 8
"""Taps x channels of a part-kernel-first step."""
FILTER_CYCLES = 32
"""Cycles to decode one step of filters: what bounds a layer with few pixels, such as a linear one."""
SUB_KERNEL = 8
"""Kernels wider or higher than this are cut."""
BLOCK_OUTPUTS = 2048
"""Outputs of one block: their 32-bit sums fill a third of the 24 Kbyte shared buffer, twice for double buffering."""


def block(nest: Nest, array: Array) -> Mapped:
    """Ethos-U55: rows = filters of a ublock, cols = its pixels; the better of the two orders, and the output stage."""
    ublocks = ceil_div(nest.q, array.cols) * nest.p * nest.n
    filters = ceil_div(nest.k, array.rows)
    groups = nest.groups
    if nest.k == nest.c == 1:  # depthwise: groups take the filters' place, channels are not summed
        filters, groups = ceil_div(nest.groups, array.rows), 1
        steps = _part_steps(nest)
    else:
        depth_first = nest.r * nest.s * ceil_div(nest.c, STEP_CHANNELS)
        part_kernel = _part_steps(nest) * ceil_div(nest.c, PART_CHANNELS)
        steps = min(depth_first, part_kernel)
    per_block = max(1, min(ublocks, BLOCK_OUTPUTS // (array.rows * array.cols)))
    blocks = ceil_div(ublocks, per_block)
    product_cycles = groups * blocks * filters * steps * max(FILTER_CYCLES, STEP_CYCLES * per_block)
    output_cycles = nest.n_output * array.output_cycles
    # one block's results leave after its products are done; all others overlap
    cycles = max(product_cycles, output_cycles) + min(product_cycles, output_cycles) / (blocks * filters)
    return Mapped(
        cycles=cycles,
        active_pes=nest.macs / cycles,
        array_elements=0.0,
        buffer_inputs=float(nest.n_input * filters),
        buffer_filters=float(nest.n_filter * blocks),
        buffer_sums=float(nest.n_output * (2 * steps - 1)),
    )


def _part_steps(nest: Nest) -> int:
    """Steps over the taps of the parts into which a large kernel is cut."""
    rows, cols = (Counter(min(SUB_KERNEL, taps - i) for i in range(0, taps, SUB_KERNEL)) for taps in (nest.r, nest.s))
    return sum(n * m * ceil_div(r * s, PART_TAPS) for r, n in rows.items() for s, m in cols.items())
