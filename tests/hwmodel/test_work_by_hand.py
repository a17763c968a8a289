"""Bytes, unpacked elements and lifetimes of single passes and layers, derived by hand."""

from __future__ import annotations

import dataclasses

import pytest

from hwmodel import cores, devices, mcu
from hwmodel.kernels import works
from hwmodel.loops import loop, trips
from hwmodel.memory import peak
from hwmodel.operations import Layer, Op, Widths, error_weight_bits
from hwmodel.pricing import price
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace
from hwmodel.work import Work
from tests.hwmodel.ops import conv
from tests.hwmodel.test_memory import chain

BATCH = 2


def work(one: Op, kernel: str) -> Work:
    (found,) = [item for item in works(one) if item.kernel == kernel]
    return found


def op(phase: str, layer: Layer, widths: Widths | None = None, trains: str = "all") -> Op:
    return Op(layer, widths or Widths(), phase, "main", BATCH, layer.out_channels, trains)


def test_a_bias_is_added_to_32_bit_sums() -> None:
    assert work(op("forward", conv(4, 6, 8)), "bias").sram_bytes == BATCH * 6 * 64 * 4


def test_im2col_of_a_grouped_convolution_copies_the_patches_of_all_groups() -> None:
    layer = conv(4, 6, 8, groups=2)
    assert work(op("forward", layer), "im2col").units == BATCH * 64 * (2 * 9) * 2


def test_pooling_reads_and_writes_activations_forward_and_errors_backward() -> None:
    layer = Layer("pool", "maxpool", ("x",), 3, 8, 8, 3, 4, 4, 2, 2, 2, 2)
    widths = Widths(activation_bits=4, error_bits=16)
    n_in, n_out = BATCH * 3 * 64, BATCH * 3 * 16
    # one read and one write of each element that the windows cover, half a byte each
    assert work(op("forward", layer, widths), "pool").sram_bytes == 2 * n_in / 2
    assert work(op("error", layer, widths), "copy").sram_bytes == 2 * n_in * 2
    assert work(op("error", layer, widths), "scatter").sram_bytes == 2 * n_out * 2


@pytest.mark.parametrize(("bits", "share"), [(4, 1 / 2), (8, 0), (16, 0)])
def test_weights_narrower_than_a_byte_alone_are_unpacked_once_for_two_pixels(bits: int, share: float) -> None:
    widths = Widths(weight_bits=bits, error_bits=4)  # narrow errors leave their containers in im2col
    one = op("error", conv(4, 6, 8), widths)
    assert work(one, "conv_error").unpacked == one.macs * share
    assert work(one, "im2col").unpacked == BATCH * 64 * 6 * 9


def test_weights_widen_only_where_several_output_channels_meet_in_one_sum() -> None:
    widths = Widths(weight_alignment=3)
    assert error_weight_bits(conv(4, 4, 8), widths) == 8 + 3
    assert error_weight_bits(conv(4, 4, 8, groups=4), widths) == 8  # depthwise: each error reaches one channel


def test_what_measurements_add_lengthens_every_level_of_a_direct_loop() -> None:
    """1x1, 4 -> 6 channels on 8x8: no borders; 64 x 6 outputs, each of one row of one run of four products."""
    library, m4 = cores.library("plain-c"), cores.core("cortex-m4")
    one = op("forward", conv(4, 6, 8, kernel=1))
    levels = loop(library.loops, "conv", "cortex-m4")
    assert levels is not None
    n = BATCH * 64 * 6
    product = Work("conv", "forward", one.macs, one.macs, n, trips=trips(one))
    cycles = 4 * n * levels.product + n * (levels.run + levels.row + levels.output)
    for factor in (1.0, 1.5, 2.0):
        assert mcu.core_cycles(product, False, m4, library, factor) == pytest.approx(factor * cycles)


def test_all_biases_learn_where_the_weights_are_frozen_whatever_channels_are_chosen() -> None:
    schedule = Schedule(chain(), Widths(), bias_only=frozenset({"fc"}), trained_channels={"fc": 2, "conv": 2})
    layers = {layer.name: layer for layer in schedule.network.layers}
    fc, small = (schedule.op(layers[name], "gradient", BATCH) for name in ("fc", "conv"))
    assert (fc.trained_channels, fc.kept_channels, fc.n_trained) == (0, 5, 5)
    assert (small.trained_channels, small.kept_channels, small.n_trained) == (2, 2, 2 * (2 * 9 + 1))


def test_a_dense_baseline_keeps_the_layers_widths_unless_others_are_given() -> None:
    narrow = Widths.uniform(4)
    schedule = Schedule(chain(), Widths(), layer_widths={"fc": narrow}, prune_keep=0.5)

    def widths(of: Schedule) -> set[Widths]:
        return {one.widths for one, _ in of.step(1) if one.layer.name == "fc"}

    assert widths(schedule.dense()) == {narrow}
    assert widths(schedule.dense(Widths.uniform(32))) == {Widths.uniform(32)}


def test_what_only_the_forward_pass_reads_is_gone_after_its_last_reader() -> None:
    """With the convolution frozen its input serves nobody once it has run, in a filter of 8 as anywhere."""
    frozen = dataclasses.replace(Schedule(chain(), Widths()), frozen=frozenset({"conv"}))
    moments = {m.name: m.by_role for m in peak(frozen, 2, filter_schedule=frozen, n_streamed=8).timeline}
    assert moments["filter_forward conv"]["filter activations"] == 8 * 2 * 16
    assert moments["filter_forward fc"].get("filter activations", 0) == 0


def test_the_bill_of_an_inference_holds_the_memory_of_an_inference() -> None:
    """While the conv runs: input 32, output 48, two columns of 18 at 16 bit, 32-bit sums of one pixel's 3 channels."""
    schedule, device = Schedule(chain(), Widths()), devices.load("stm32l4r5")
    bill = price(Trace.of(list(schedule.forward(1)), n_instances=1), device, schedule=schedule, scope="inference")
    assert bill.memory is not None
    assert bill.memory.peak_ram_bytes == 32 + 48 + 2 * 18 * 2 + 3 * 4
