"""Arrays, clusters and vector units: traffic, cycles and energy of single passes, derived by hand."""

from __future__ import annotations

import dataclasses

import pytest

from hwmodel import devices
from hwmodel.accelerator import kernel_costs
from hwmodel.dataflow import Array
from hwmodel.kernels import works
from hwmodel.nests import nests
from hwmodel.operating_point import configured
from hwmodel.operations import Op, Widths
from hwmodel.row_stationary import row_stationary
from hwmodel.vector_unit import vector_cost
from hwmodel.work import Work
from tests.hwmodel.ops import conv, linear

BATCH = 2
EYERISS = Array("", 12, 14, 12, 224, 24, 102400, 2, 2)


def op(phase: str = "forward", channels: int = 4, out: int = 6, side: int = 8, **more: object) -> Op:
    return dataclasses.replace(
        Op(conv(channels, out, side), Widths(), phase, "main", BATCH, out),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("out", "filters_in_pe"), [(12, 16), (4, 4), (1, 1)])
def test_register_files_of_a_row_stationary_array_are_filled(out: int, filters_in_pe: int) -> None:
    """12 input registers hold the 3-wide windows of 4 of the 8 channels; 224 filter registers 18 filters of such 12.

    A power of two of them, no more than a power of two that holds all filters: 16 of 18 for 12 filters, 4 for 4.
    An input is read once for those filters and its 3 taps, a filter once for a row of 16 outputs, a sum once for the 12
    products of 4 channels.
    """
    (nest,) = nests(op(channels=8, out=out, side=16))
    macs = BATCH * 256 * 8 * 9 * out
    expected = macs / (filters_in_pe * 3) + macs / 16 + macs / (4 * 3)
    assert row_stationary(nest, EYERISS).array_elements == pytest.approx(expected)


def test_a_row_stationary_map_is_stacked_where_that_spares_reading_its_filter_again() -> None:
    """1x1 on 4x4 pixels, 2x2 PEs, two bytes a value, four through the buffer a cycle.

    Whole, in two stacked strips: 16 inputs, 1 filter, 16 sums are 66 bytes, 16.5 cycles for 4 of the PEs. Strip after
    strip the filter is read twice: 68 bytes, 17 cycles.
    """
    layer = conv(1, 1, 4, kernel=1)
    (nest,) = nests(Op(layer, Widths(), "forward", "main", 1, 1))
    mapped = row_stationary(nest, Array("", 2, 2, 12, 224, 24, 102400, 2, 2, buffer_rate=4.0))
    assert (mapped.cycles, mapped.active_pes) == (16 / 4, 4)
    assert (mapped.buffer_inputs, mapped.buffer_filters, mapped.buffer_sums) == (16, 1, 16)


def test_an_array_without_stated_register_files_has_one_word_of_each() -> None:
    device = devices.load("eyeriss")
    words = {key: constant for key, constant in device.constants.items() if key.endswith("_registers")}
    assert len(words) == 3
    bare = dataclasses.replace(device, constants={k: c for k, c in device.constants.items() if k not in words})
    ones = device.with_constants(**{key: dataclasses.replace(constant, value=1.0) for key, constant in words.items()})
    assert kernel_costs(op(), 1.0, bare) == kernel_costs(op(), 1.0, ones)


def test_power_without_a_clocked_share_does_not_fall_with_the_clock() -> None:
    device = devices.load("systolic-14x12")
    assert "clocked_share" not in device.constants
    assert configured(device, clock_mhz=100).value("static_w") == device.value("static_w")


def test_a_vector_unit_works_at_its_rate_or_its_buffers() -> None:
    device = devices.load("systolic-14x12")
    lanes, rate = device.value("vector.ops_per_cycle"), device.value("bandwidth.buffer")
    for n_bytes, cycles in ((0.0, 1200 / lanes), (1e6, 1e6 / rate)):
        cost = vector_cost(op(), Work("bias", "forward", 0, 1200, sram_bytes=n_bytes), device)
        assert cost.cycles == pytest.approx(cycles)
        standing = device.value("static_w") * cycles / device.value("clock_hz")
        moving = n_bytes * device.value("energy.buffer")
        assert cost.energy_j == pytest.approx(1200 * device.value("vector.op_j") + moving + standing)


@pytest.mark.parametrize(("bits", "weight_bytes"), [(8, 1.0), (4, 0.5), (2, 0.25)])
def test_a_cluster_loads_each_operand_once_where_its_scratchpad_holds_them(bits: int, weight_bytes: float) -> None:
    device = devices.load("xpulp-cluster8")
    one = op(widths=Widths(weight_bits=bits))
    n_in, n_weights, n_out = BATCH * 4 * 64, 6 * 4 * 9, BATCH * 6 * 64
    (work,) = [w for w in works(one) if w.kernel == "conv"]
    (cost,) = [c for c in kernel_costs(one, 1.0, device) if c.kernel == "conv"]
    assert cost.sram_bytes - work.sram_bytes == pytest.approx(n_in + n_weights * weight_bytes + n_out)


def test_backward_passes_run_on_the_cores_of_an_inference_engine() -> None:
    """Its cores run every kernel of a software library; the engine itself needs no im2col, no rotated copy."""
    device = devices.load("gap9")
    for phase in ("error", "gradient"):
        one = op(phase)
        assert [cost.kernel for cost in kernel_costs(one, 1.0, device)] == [work.kernel for work in works(one)]
    assert "im2col" in {work.kernel for work in works(op())}
    assert "im2col" not in {cost.kernel for cost in kernel_costs(op(), 1.0, device)}


def test_a_layer_of_which_only_biases_learn_has_no_gradient_nest() -> None:
    for learns, n_nests in (("all", 1), ("bias", 0), ("none", 0)):
        assert len(nests(op("gradient", trains=learns))) == n_nests
    assert nests(Op(linear(4, 3), Widths(), "gradient", "main", BATCH, 3, "bias")) == ()
