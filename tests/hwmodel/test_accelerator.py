"""Nests, mappings and prices of PE arrays, derived by hand on small convolutions."""

from __future__ import annotations

import dataclasses

import pytest

from hwmodel import devices
from hwmodel.accelerator import kernel_costs
from hwmodel.arithmetic import mac_pj
from hwmodel.cost import KernelCost
from hwmodel.dataflow import Array, backing_bytes, output_stationary, weight_stationary
from hwmodel.devices import Device
from hwmodel.errors import HwmodelError
from hwmodel.nests import nests
from hwmodel.operating_point import configured
from hwmodel.operations import Layer, Op, Widths
from hwmodel.row_stationary import row_stationary


def conv(**changes: object) -> Layer:
    """16x16, 8 channels to 12, 3x3."""
    layer = Layer("conv", "conv", ("x",), 8, 16, 16, 12, 16, 16, 3, 3)
    return dataclasses.replace(layer, **changes)  # type: ignore[arg-type]


def op(phase: str = "forward", batch: int = 2, kept: int = 12, layer: Layer | None = None) -> Op:
    return Op(layer or conv(), Widths(), phase, "main", batch, kept)


@pytest.mark.parametrize("phase", ["forward", "error", "gradient"])
@pytest.mark.parametrize(
    "layer",
    [
        conv(),
        conv(out_height=8, out_width=8, stride_height=2, stride_width=2),
        conv(out_height=8, out_width=8, stride_height=2, stride_width=2, kernel_height=1, kernel_width=1),
        conv(groups=4),
        conv(out_channels=8, groups=8),
    ],
)
def test_nests_make_every_product_of_the_pass_once(phase, layer):
    one = op(phase, kept=layer.out_channels, layer=layer)
    assert sum(nest.macs for nest in nests(one)) == one.macs == 2 * layer.macs


def test_roles_of_the_three_passes():
    forward, error, gradient = (nests(op(phase))[0] for phase in ("forward", "error", "gradient"))
    n_image, n_map, n_weights = 2 * 8 * 256, 2 * 12 * 256, 12 * 8 * 9
    assert (forward.n_input, forward.n_filter, forward.n_output) == (n_image, n_weights, n_map)
    assert (error.n_input, error.n_filter, error.n_output) == (n_map, n_weights, n_image)
    assert (gradient.n_input, gradient.n_filter, gradient.n_output) == (n_image, n_map, n_weights)


def test_stride_two_splits_the_error_into_four_dense_convolutions():
    layer = conv(out_height=8, out_width=8, stride_height=2, stride_width=2)
    taps = sorted(nest.r * nest.s for nest in nests(op("error", layer=layer)))
    assert taps == [1, 2, 2, 4]  # (2 + 1) x (2 + 1) = 9 taps


SYSTOLIC = Array("", rows=4, cols=4, input_registers=1, filter_registers=1, sum_registers=1,
                 buffer_bytes=1 << 20, element_bytes=1, sum_bytes=4)  # fmt: skip


def test_weight_stationary_folds_by_hand():
    # [512 pixels, 72] x [72, 12] on 4 x 4: 18 x 3 folds, each 4 rows of filters in, then 512 + 4 + 4 - 2 cycles
    mapped = weight_stationary(nests(op())[0], SYSTOLIC)
    assert mapped.cycles == 18 * 3 * (4 + 512 + 4 + 4 - 2)
    assert mapped.buffer_inputs == 512 * 72 * 3  # again for each fold of filters
    assert mapped.buffer_filters == 12 * 72
    assert mapped.buffer_sums == 512 * 12 * (2 * 18 - 1)  # read and written at each fold of the reduction but the first


def test_output_stationary_folds_by_hand():
    mapped = output_stationary(nests(op())[0], SYSTOLIC)
    assert mapped.cycles == 128 * 3 * (4 + 72 + 4 + 4 - 2)
    assert (mapped.buffer_filters, mapped.buffer_sums) == (12 * 72 * 128, 512 * 12)


def test_row_stationary_by_hand():
    # 3 x 16 PEs make one 2-D convolution. 12 x 14 PEs hold 4 sets of 3 x 8 (strips of 8 rows) or, each in two stacked
    # segments, 2 sets of 3 x 16. Either way 96 PEs work on 2·12·8 maps of 16·16·9 products.
    eyeriss = Array("", 12, 14, 12, 224, 24, 102400, 2, 2)
    mapped = row_stationary(nests(op())[0], eyeriss)
    assert mapped.active_pes == 96
    assert mapped.cycles == 2 * 12 * 8 * 256 * 9 / 96


def test_wide_maps_leave_room_for_fewer_sets():
    """VGG-16's 3x3 layers, 64 channels on 224 pixels and 512 on 14, batch 3: 42 and 168 of 168 PEs."""
    eyeriss = Array("", 12, 14, 12, 224, 24, 102400, 2, 2)
    wide = Layer("w", "conv", ("x",), 64, 224, 224, 64, 224, 224, 3, 3)
    deep = Layer("d", "conv", ("x",), 512, 14, 14, 512, 14, 14, 3, 3)
    active = [
        row_stationary(nests(Op(layer, Widths.uniform(16), "forward", "main", 3, layer.out_channels))[0], eyeriss)
        for layer in (wide, deep)
    ]
    assert [mapped.active_pes for mapped in active] == [42, 168]


@pytest.mark.parametrize("phase", ["forward", "error", "gradient"])
@pytest.mark.parametrize(("side", "kernel"), [(1, 1), (8, 3), (32, 3), (14, 5)])
def test_one_channel_more_never_takes_fewer_cycles_on_eyeriss(phase, side, kernel):
    device = devices.load("eyeriss")

    def cycles(channels, out):
        layer = Layer("c", "conv", ("x",), channels, side, side, out, side, side, kernel, kernel)
        return sum(cost.cycles for cost in kernel_costs(Op(layer, Widths(), phase, "main", 1, out), 1.0, device))

    for n in range(1, 40):
        assert cycles(7, n) <= cycles(7, n + 1)
        assert cycles(n, 7) <= cycles(n + 1, 7)


def test_eyeriss_frame_rates_and_memory_accesses():
    """The published 35 and 0.7 frames/s: one constant is fitted to AlexNet's rate, VGG-16's follows."""
    device = devices.load("eyeriss")
    alexnet = [
        Layer("1", "conv", ("x",), 3, 227, 227, 96, 55, 55, 11, 11, 4, 4),
        Layer("2", "conv", ("x",), 96, 31, 31, 256, 27, 27, 5, 5, groups=2),
        Layer("3", "conv", ("x",), 256, 15, 15, 384, 13, 13, 3, 3),
        Layer("4", "conv", ("x",), 384, 15, 15, 384, 13, 13, 3, 3, groups=2),
        Layer("5", "conv", ("x",), 384, 15, 15, 256, 13, 13, 3, 3, groups=2),
    ]
    shapes = [(3, 224, 64), (64, 224, 64), (64, 112, 128), (128, 112, 128), (128, 56, 256), (256, 56, 256),
              (256, 56, 256), (256, 28, 512), (512, 28, 512), (512, 28, 512)] + [(512, 14, 512)] * 3  # fmt: skip
    vgg = [Layer(str(i), "conv", ("x",), c, h, h, k, h, h, 3, 3) for i, (c, h, k) in enumerate(shapes)]
    # ours is dense traffic; the published accesses are counted after run-length coding of zeros
    for layers, batch, frames_per_s, accesses_per_mac in ((alexnet, 4, 35, 0.0029), (vgg, 3, 0.7, 0.0035)):
        costs = [_product(layer, batch, device) for layer in layers]
        assert batch / (sum(cost.cycles for cost in costs) / 200e6) == pytest.approx(frames_per_s, rel=0.12)
        accesses = sum(cost.external_bytes / 2 for cost in costs) / sum(cost.macs for cost in costs)
        assert 1.0 < accesses / accesses_per_mac < 1.6


def _product(layer: Layer, batch: int, device: Device) -> KernelCost:
    forward = Op(layer, Widths.uniform(16), "forward", "main", batch, layer.out_channels)
    return next(cost for cost in kernel_costs(forward, 1.0, device) if cost.macs == forward.macs)


def test_backing_traffic_is_compulsory_when_the_buffer_holds_it_and_grows_when_not():
    nest = nests(op())[0]
    compulsory = nest.n_input + nest.n_filter + nest.n_output
    assert backing_bytes(nest, SYSTOLIC, 1, 1, 1) == compulsory
    small = dataclasses.replace(SYSTOLIC, buffer_bytes=1024)
    # 512 bytes hold 864 filter bytes in two loads: inputs pass twice
    assert backing_bytes(nest, small, 1, 1, 1) == compulsory + nest.n_input


def test_mac_energy_follows_the_45_nm_table():
    assert mac_pj(8, 8, 32) == pytest.approx(0.2 + 0.1)
    assert mac_pj(32, 32, 32) == pytest.approx(3.1 + 0.1, rel=0.04)
    assert mac_pj(32, 32, 32, floating=True) == pytest.approx(3.7 + 0.9)
    assert mac_pj(4, 8, 32) < mac_pj(8, 8, 32) < mac_pj(16, 8, 32)


def test_lower_clock_takes_longer_and_a_higher_one_is_refused():
    device = devices.load("eyeriss")
    slow = configured(device, clock_mhz=100)
    assert slow.value("bandwidth.backing") == 2 * device.value("bandwidth.backing")
    fast_s, slow_s = (
        sum(cost.cycles for cost in kernel_costs(op(), 1.0, d)) / d.value("clock_hz") for d in (device, slow)
    )
    assert slow_s > fast_s
    clocked = device.value("clocked_share")
    assert slow.value("static_w") == pytest.approx(device.value("static_w") * (1 - clocked / 2))
    with pytest.raises(HwmodelError, match="up to 200 MHz"):
        configured(device, clock_mhz=201)
