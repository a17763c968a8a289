"""Row-stationary mapping (Chen et al., Eyeriss, ISCA 2016 and JSSC 2017).

A PE slides one filter row over one input row. A set of r x e PEs (filter rows x output rows of a strip)
makes e rows of a 2-D convolution: filter rows are shared along it, input rows across its diagonals, sums
run down its columns. Free room in the array holds more sets: `t` of other filters, `u` of other channels.
Inside a PE `f` filters and `d` channels interleave, as far as its register files go.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from hwmodel.dataflow import Array, Mapped, ceil_div
from hwmodel.nests import Nest


@lru_cache(maxsize=10_000)
def row_stationary(nest: Nest, array: Array) -> Mapped:
    """The mapping with the most filters in a PE; among equals the fastest, buffer traffic included, then the one with
    the least traffic.

    Filters in a PE come first because its registers are the cheapest reuse. Partial sums and inputs of a
    pass lie in the buffer twice (one half works, the other loads), so wide maps leave room for fewer
    filters and sets: with this order of choices VGG-16's wide layers run at a quarter of the array, as its
    published 0.7 frames/s demand. Sets and registers are allotted in powers of two whether the layer fills them or
    not, so what a layer may choose from never grows with its channels: one channel more never costs less.
    """
    choices = list(_choices(nest, array))
    most = max(choice[1] for choice in choices)
    candidates = (_evaluate(nest, array, *choice) for choice in choices if choice[1] == most)
    return min(candidates, key=lambda mapped: _cost(mapped, array))


def _cost(mapped: Mapped, array: Array) -> tuple[float, float]:
    """Cycles of array or buffer, whichever takes longer, and bytes through the buffer."""
    moved = (
        mapped.buffer_inputs * array.element_bytes
        + mapped.buffer_filters * array.filter_bytes
        + mapped.buffer_sums * array.sum_bytes
    )
    return max(mapped.cycles, moved / array.buffer_rate), moved


def _choices(nest: Nest, array: Array) -> Iterator[tuple[int, int, int, int]]:
    """(strip height e, filters in a PE, sets of filters, sets of channels) that the array and its buffer
    can hold."""
    stacked = array.rows // min(nest.r, array.rows)
    strips = {ceil_div(nest.p, ceil_div(nest.p, array.cols))}
    if nest.p <= array.cols * stacked:
        strips.add(nest.p)  # the whole map, its strips stacked in the array
    channels = _channels_in_pe(nest, array)
    filters = _filters_in_pe(nest, array)
    half = array.buffer_bytes / 2
    found = False
    for strip in strips:
        sets = stacked * (array.cols // strip) if strip <= array.cols else stacked // ceil_div(strip, array.cols)
        for f in _halves(filters):
            for t in _powers(sets):
                sums = f * t * strip * nest.q * array.sum_bytes
                for u in _powers(sets // t):
                    inputs = channels * u * nest.input_rows(strip) * nest.input_width * array.element_bytes
                    if sums + inputs <= half:
                        found = True
                        yield strip, f, t, u
    if not found:  # not even one set's maps fit: rows are cut, at one filter and one set at a time
        yield min(strips), 1, 1, 1


def _evaluate(nest: Nest, array: Array, strip: int, f: int, t: int, u: int) -> Mapped:
    channels = _channels_in_pe(nest, array)
    set_rows = min(nest.r, array.rows)
    row_folds, strips = ceil_div(nest.r, set_rows), ceil_div(nest.p, strip)
    filter_turns = ceil_div(nest.k, f * t)
    # sets beyond the channels of one sum take other images or groups
    channel_turns = ceil_div(nest.c * nest.n * nest.groups, u)
    turns = ceil_div(nest.k, t) * channel_turns
    cycles = turns * row_folds * strips * nest.q * nest.s
    strip_inputs = nest.input_rows(strip) * nest.input_width
    inputs = nest.groups * nest.n * nest.c * strips * strip_inputs * filter_turns
    sum_turns = ceil_div(nest.c, min(nest.c, channels * u)) * row_folds
    row_taps = min(nest.s, array.input_registers)
    return Mapped(
        cycles=cycles,
        active_pes=nest.macs / cycles,
        # register files are filled: an input serves f filters along its row, a filter the row, a sum d channels' taps
        array_elements=nest.macs / (f * row_taps) + nest.macs / nest.q + nest.macs / (channels * row_taps),
        buffer_inputs=inputs,
        buffer_filters=nest.n_filter * strips,
        buffer_sums=nest.n_output * (2 * sum_turns - 1),
    )


def _channels_in_pe(nest: Nest, array: Array) -> int:
    """Channels whose input windows fit a PE's input registers."""
    return max(1, min(nest.c, array.input_registers // min(nest.s, array.input_registers)))


def _filters_in_pe(nest: Nest, array: Array) -> int:
    """Filters, a power of two, whose rows fit a PE's filter registers beside as many channels as it can take, and whose
    sums fit its sum registers."""
    row = min(nest.s, array.input_registers)
    row *= array.input_registers // row
    room = max(1, min(array.sum_registers, array.filter_registers // row))
    enough = 1 << (nest.k - 1).bit_length()
    return min(enough, 1 << (room.bit_length() - 1))


def _halves(n: int) -> Iterator[int]:
    while n:
        yield n
        n //= 2


def _powers(limit: int) -> Iterator[int]:
    n = 1
    while n <= limit:
        yield n
        n *= 2
