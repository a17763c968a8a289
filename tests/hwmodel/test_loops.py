"""Trips of direct loops, counted by running the loops."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodel import cores, loops, mcu
from hwmodel.kernels import works
from hwmodel.loops import Trips, inside, trips
from hwmodel.operations import Op, Widths
from tests.hwmodel.ops import conv, mac_ops

SHAPES = st.tuples(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.sampled_from([1, 3, 5]), st.integers(1, 2)
)


def op(channels: int, out: int, side: int, kernel: int, stride: int, phase: str) -> Op:
    layer = conv(channels, out, side, kernel, stride, bias=False)
    return Op(layer, Widths(), phase, "main", 1, out)


@given(shape=SHAPES)
def test_forward_trips_are_those_of_the_loops_written_out(shape: tuple[int, int, int, int, int]) -> None:
    channels, out, side, kernel, stride = shape
    pad, out_side = (kernel - 1) // 2, -(-side // stride)
    count = dict.fromkeys(("products", "runs", "skips", "rows", "row_skips", "outputs"), 0)
    for row, column, _ in itertools.product(range(out_side), range(out_side), range(out)):
        count["outputs"] += 1
        for fy in range(kernel):
            if not 0 <= row * stride + fy - pad < side:
                count["row_skips"] += 1
                continue
            count["rows"] += 1
            for fx in range(kernel):
                within = 0 <= column * stride + fx - pad < side
                count["runs" if within else "skips"] += 1
                count["products"] += channels * within
    found = trips(op(channels, out, side, kernel, stride, "forward"))
    assert {level: getattr(found, level) for level in count} == pytest.approx(count)


@given(shape=SHAPES)
def test_gradient_trips_are_those_of_the_loops_written_out(shape: tuple[int, int, int, int, int]) -> None:
    channels, out, side, kernel, stride = shape
    pad, out_side = (kernel - 1) // 2, -(-side // stride)
    count = dict.fromkeys(("products", "skips", "rows", "row_skips", "outputs"), 0)
    for _, fy, fx, _ in itertools.product(range(out), range(kernel), range(kernel), range(channels)):
        count["outputs"] += 1
        for row in range(out_side):
            if not 0 <= row * stride + fy - pad < side:
                count["row_skips"] += 1
                continue
            count["rows"] += 1
            for column in range(out_side):
                count["products" if 0 <= column * stride + fx - pad < side else "skips"] += 1
    found = trips(op(channels, out, side, kernel, stride, "gradient"))
    assert {level: getattr(found, level) for level in count} == pytest.approx(count)


def test_a_window_wholly_inside_skips_nothing() -> None:
    """5 outputs x 3 taps of a 3-wide window over 7 inputs without padding; with padding 2 of 7 x 3 lie outside."""
    assert inside(7, 5, 3, 1) == 15
    assert inside(7, 7, 3, 1) == 7 * 3 - 2


def test_a_loop_costs_its_entries() -> None:
    """10 products x 3, 2 runs x 5, 1 skip x 7, 4 rows x 11, 1 output x 13, 6 inputs x 2 = 116 cycles."""
    entries = Trips(10, 2, 1, 4, 0, 1, 6, 2)
    loop = loops.Loop(3, output=13, run=5, skip=7, row=11, row_skip=17, input=2)
    assert loop.cycles(entries, loop.product) == 30 + 10 + 7 + 44 + 13 + 12
    shared = loops.Loop(3, output=13, run=5, skip=7, row=11, row_skip=17, input=2, innermost=True)
    assert shared.cycles(entries, shared.product) == 30 + (10 + 7 + 44 + 13) / 2 + 12


@pytest.mark.parametrize("name", cores.core_names())
@given(one=mac_ops())
def test_plain_loops_never_beat_the_instruction_set_on_what_they_multiply(name: str, one: Op) -> None:
    core = cores.core(name)
    bound = core.float_bound if one.widths.floating else core.bound
    for work in works(one):
        if work.trips and work.kernel != "linear_gradient":
            cycles = mcu.core_cycles(work, one.widths.floating, core, cores.library("plain-c"))
            assert cycles >= bound * work.trips.products * (1 - 1e-9)
