"""Peak memory of a three-layer network and of a residual block, derived by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest

from hwmodel import devices
from hwmodel.errors import HwmodelError
from hwmodel.memory import MemoryBill, peak
from hwmodel.network import Network
from hwmodel.operations import Layer, Widths
from hwmodel.schedule import Schedule

BATCH = 2


def chain() -> Network:
    """2x4x4 image, 3x3 conv with ReLU to 3 channels, linear to 5 classes, loss."""
    return Network(
        "chain",
        (
            Layer("input", "input", (), 2, 4, 4, 2, 4, 4),
            Layer("conv", "conv", ("input",), 2, 4, 4, 3, 4, 4, 3, 3, bias=True, activation="relu"),
            Layer("fc", "linear", ("conv",), 48, 1, 1, 5, 1, 1, bias=True),
            Layer("loss", "loss", ("fc",), 5, 1, 1, 1, 1, 1),
        ),
    )


def schedule(**changes: object) -> Schedule:
    return dataclasses.replace(Schedule(chain(), Widths()), **changes)  # type: ignore[arg-type]


# Parameters: conv 3·2·3·3 = 54 weights + 3 biases, fc 5·48 = 240 + 5; 16-bit master: (57 + 245)·2 = 604.
MASTER = 604
CODES_CONV = 54 + 3 * 4  # 8-bit weights, 32-bit biases; only its forward reads them: nothing lies below it
CODES_FC = 240 + 5 * 4  # until its error pass
IMAGE = INPUT = BATCH * 2 * 16  # raw, and in the activation format for the conv's weight gradient
CONV = BATCH * 3 * 16  # for fc's weight gradient, and its sign is the conv's ReLU mask
LOGITS = BATCH * 5
TIMELINE = {
    "forward input": MASTER + IMAGE + INPUT,
    # two im2col columns of 18 at 16 bit, accumulators of one output pixel
    "forward conv": MASTER + CODES_CONV + INPUT + CONV + 2 * 18 * 2 + 3 * 4,
    "forward fc": MASTER + CODES_FC + INPUT + CONV + LOGITS + 5 * 4,
    "forward loss": MASTER + CODES_FC + INPUT + CONV + LOGITS + BATCH,
    "error loss": MASTER + CODES_FC + INPUT + CONV + LOGITS + LOGITS,
    # 32-bit accumulators of fc's whole gradient, for its exponent; rounded in place to 8 bit
    "gradient fc": MASTER + CODES_FC + INPUT + CONV + LOGITS + 245 * 4,
    "error fc": MASTER + CODES_FC + INPUT + CONV + LOGITS + 245 + CONV + 48 * 4,
    # fc's gradient, conv's accumulators; one instance's input and error by channel
    "gradient conv": MASTER + INPUT + CONV + CONV + 245 + 57 * 4 + (32 + 48),
    "update conv": MASTER + 245 + 57,
    "update fc": MASTER + 245,
}


def moments(bill: MemoryBill) -> dict[str, int]:
    return {moment.name: moment.n_bytes for moment in bill.timeline}


def test_every_moment_of_a_step_by_hand():
    bill = peak(schedule(), BATCH)
    assert moments(bill) == TIMELINE
    assert (bill.peak_moment, bill.peak_ram_bytes) == ("gradient fc", 2014)
    assert (bill.tenants[0].role, bill.tenants[0].n_bytes) == ("accumulators", 245 * 3)
    assert sum(tenant.n_bytes for tenant in bill.tenants) == bill.peak_ram_bytes
    assert bill.flash_bytes == 0  # everything is trained


def test_fused_update_frees_each_gradient_before_the_next_pass():
    bill = peak(schedule(fused_update=True), BATCH)
    fused = moments(bill)
    assert list(fused)[5:8] == ["gradient fc", "update fc", "error fc"]  # the error reads the codes, not the master
    assert fused["error fc"] == TIMELINE["error fc"] - 245
    assert fused["gradient conv"] == TIMELINE["gradient conv"] - 245


def test_fused_float_update_waits_for_the_error_that_reads_the_weights():
    fused = moments(peak(schedule(fused_update=True, widths=Widths.uniform(32)), BATCH))
    assert list(fused)[5:8] == ["gradient fc", "error fc", "update fc"]


def test_an_array_addresses_its_operands_without_layout_copies():
    on_array = moments(peak(schedule(), BATCH, device=devices.load("eyeriss")))
    assert on_array["forward conv"] == TIMELINE["forward conv"] - 2 * 18 * 2
    assert on_array["gradient conv"] == TIMELINE["gradient conv"] - (32 + 48)


def test_momentum_adds_its_bits_at_every_moment():
    with_momentum = moments(peak(schedule(momentum=True), BATCH))
    assert with_momentum == {name: n + 302 * 2 for name, n in TIMELINE.items()}


def test_frozen_layer_moves_to_flash_and_saves_nothing():
    bill = peak(schedule(frozen=frozenset({"conv"})), BATCH)
    assert bill.flash_bytes == CODES_CONV
    # no conv master, gradient or input saved; no error for it either, so fc's codes go after its forward
    assert moments(bill)["gradient fc"] == 245 * 2 + CONV + LOGITS + 245 * 4
    assert "error fc" not in moments(bill)


def test_bias_only_layer_saves_a_mask_instead_of_its_input():
    bill = peak(schedule(bias_only=frozenset({"fc"})), BATCH)
    # fc keeps no weight copies; the conv's output is freed after fc's forward, one bit per element stays
    expected = (57 + 5) * 2 + 5 * 4 + INPUT + CONV // 8 + LOGITS + 5 + CONV + 48 * 4
    assert moments(bill)["error fc"] == expected
    assert bill.flash_bytes == 240


def test_inference_holds_the_live_pair_only():
    bill = peak(schedule(), 1, inference=True)
    # input 32 + conv 48 + im2col 72 + accumulators 12 while the conv runs
    assert (bill.peak_moment, bill.peak_ram_bytes) == ("forward conv", 164)
    assert bill.flash_bytes == CODES_CONV + CODES_FC


def residual() -> Network:
    """conv a, fork into conv b and the addition, ReLU after it."""
    shape = (4, 2, 2, 4, 2, 2)
    return Network(
        "residual",
        (
            Layer("input", "input", (), *shape),
            Layer("a", "conv", ("input",), *shape),
            Layer("fork", "fork", ("a",), *shape),
            Layer("b", "conv", ("fork",), *shape),
            Layer("add", "add", ("b", "fork"), *shape, activation="relu"),
            Layer("fc", "linear", ("add",), 16, 1, 1, 2, 1, 1),
            Layer("loss", "loss", ("fc",), 2, 1, 1, 1, 1, 1),
        ),
    )


def test_shortcut_shares_one_error_map_until_the_branches_meet():
    by_role = {moment.name: moment.by_role for moment in peak(Schedule(residual(), Widths()), 1).timeline}
    assert by_role["error fc"]["errors"] == 2 + 16  # of the logits, of the addition
    assert by_role["error add"]["errors"] == 16  # passed on to both inputs, not copied
    assert by_role["error b"]["errors"] == 16 + 16  # the shortcut's and the new one
    assert by_role["error fork"]["errors"] == 16 + 16  # summed in place
    assert by_role["gradient a"]["errors"] == 16
    # a serves b's gradient through the fork; the sum serves fc's gradient and its own mask
    assert by_role["error fc"]["saved activations"] == 3 * 16
    assert by_role["gradient b"]["saved activations"] == 2 * 16


def test_normalization_input_is_saved_in_norm_bits_and_pooling_keeps_indices():
    net = Network(
        "pooled",
        (
            Layer("input", "input", (), 1, 4, 4, 1, 4, 4),
            Layer("conv", "conv", ("input",), 1, 4, 4, 8, 4, 4, normalized=True),
            Layer("norm", "batchnorm", ("conv",), 8, 4, 4, 8, 4, 4, activation="relu"),
            Layer("pool", "maxpool", ("norm",), 8, 4, 4, 8, 2, 2, 2, 2, 2, 2),
            Layer("fc", "linear", ("pool",), 32, 1, 1, 2, 1, 1),
            Layer("loss", "loss", ("fc",), 2, 1, 1, 1, 1, 1),
        ),
    )
    bill = peak(Schedule(net, Widths(activation_bits=4, norm_bits=8)), 1)
    at_loss = next(moment.by_role for moment in bill.timeline if moment.name == "error loss")
    # input 16 and pooled 32 and logits 2 at 4 bit, the conv's 128 outputs at 8 bit
    assert at_loss["saved activations"] == 8 + 128 + 16 + 1
    assert at_loss["relu masks"] == 128 // 8
    assert at_loss["pool indices"] == 32 * 2 // 8  # 2 bits for one of four


def test_filter_keeps_only_the_learned_instances_after_its_decision():
    bill = peak(schedule(), 2, filter_schedule=schedule(), n_streamed=8)
    by_role = {moment.name: moment.by_role for moment in bill.timeline}
    assert by_role["filter_forward fc"]["filter saved activations"] == 8 * (32 + 48 + 5)
    assert by_role["filter_forward fc"]["filter images"] == 8 * 32
    assert by_role["forward fc"]["filter saved activations"] == 2 * (32 + 48 + 5)
    assert by_role["forward fc"]["filter master weights"] == MASTER
    assert by_role["forward input"]["images"] == 2 * 32


def test_bill_is_plain_data_and_bad_counts_are_refused():
    data = json.loads(json.dumps(peak(schedule(), BATCH).to_json()))
    assert data["peak_ram_bytes"] == 2014
    assert data["fits"] is None
    with pytest.raises(HwmodelError, match="at least one instance"):
        peak(schedule(), 0)
    with pytest.raises(HwmodelError, match="at most the stream"):
        peak(schedule(), 4, filter_schedule=schedule(), n_streamed=3)
