"""Laws that every device profile obeys: one table over all TOML files, random Ops."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwmodel import cores, devices
from hwmodel.cost import KernelCost
from hwmodel.devices import Device
from hwmodel.errors import HwmodelError
from hwmodel.kernels import form
from hwmodel.loops import trips
from hwmodel.operating_point import configured
from hwmodel.operations import ALIGNMENT_BITS, REPORT_PHASES, Op, Widths, quantize_charged_to
from hwmodel.pricing import kernel_costs, price
from hwmodel.trace import Trace
from tests.hwmodel.ops import BITS, conv, linear, mac_ops, ops

ALL = devices.names()
CLOCKED = [name for name in ALL if devices.load(name).kind != "roofline"]  # a module has its power mode's one clock
MCUS = [name for name in ALL if devices.load(name).kind == "mcu"]
quick = settings(max_examples=12, deadline=None)


def total(costs: list[KernelCost], field: str) -> float:
    return sum(getattr(cost, field) for cost in costs)


def traffic(costs: list[KernelCost]) -> float:
    return sum(cost.sram_bytes + cost.flash_bytes + cost.external_bytes for cost in costs)


@pytest.fixture(scope="module", params=ALL)
def device(request: pytest.FixtureRequest) -> Device:
    return devices.load(request.param)


@pytest.fixture(scope="module", params=CLOCKED)
def clocked(request: pytest.FixtureRequest) -> Device:
    return devices.load(request.param)


@pytest.fixture(scope="module", params=MCUS)
def mcu(request: pytest.FixtureRequest) -> Device:
    return devices.load(request.param)


@quick
@given(op=ops())
def test_kernels_account_for_every_multiply_of_the_op(device: Device, op: Op) -> None:
    expected = Counter({op.report_phase: op.macs})
    expected[quantize_charged_to(op.payer, op.phase)] += op.n_requantized
    found: Counter[str] = Counter()
    for cost in kernel_costs(op, 1.0, device):
        found[cost.phase] += cost.macs
    assert +found == +expected


@quick
@given(op=ops())
def test_costs_are_finite_and_positive(device: Device, op: Op) -> None:
    for cost in kernel_costs(op, 1.0, device):
        assert cost.phase in REPORT_PHASES
        assert 0 <= cost.cycles < float("inf")
        assert 0 <= cost.energy_j < float("inf")
        assert min(cost.sram_bytes, cost.flash_bytes, cost.external_bytes) >= 0
    assert total(kernel_costs(op, 1.0, device), "cycles") > 0 or op.macs == 0


@quick
@given(op=mac_ops())
def test_aligning_channels_costs_something_where_they_meet_in_a_sum(device: Device, op: Op) -> None:
    """That is in the error pass of a layer whose groups have more than one output channel, and nowhere else. (Narrower
    weights than a byte are unpacked while they are aligned, which may repay it.)"""
    widths = Widths.uniform(8)
    plain = dataclasses.replace(op, widths=widths)
    aligned = dataclasses.replace(op, widths=dataclasses.replace(widths, weight_alignment=ALIGNMENT_BITS))
    costs = [kernel_costs(o, 1.0, device) for o in (plain, aligned)]
    meet = op.phase == "error" and op.layer.out_channels > op.layer.groups and op.macs > 0
    for field in ("cycles", "energy_j"):
        assert (total(costs[1], field) > total(costs[0], field)) == meet
    assert total(costs[1], "macs") == total(costs[0], "macs")


@quick
@given(op=ops(), narrow=BITS, wide=BITS)
def test_fewer_bits_never_cost_more_traffic(device: Device, op: Op, narrow: int, wide: int) -> None:
    assume(narrow < wide)
    few = dataclasses.replace(op, widths=Widths.uniform(narrow))
    many = dataclasses.replace(op, widths=Widths.uniform(wide))
    if many.widths.floating:  # a float32 pass does not requantize: compare what both do
        costs = [c for c in kernel_costs(few, 1.0, device) if "requantize" not in c.kernel]
    else:
        costs = kernel_costs(few, 1.0, device)
    assert traffic(costs) <= traffic(kernel_costs(many, 1.0, device)) * (1 + 1e-9)


@quick
@given(first=ops(), second=ops())
def test_the_price_of_a_sum_is_the_sum_of_prices(device: Device, first: Op, second: Op) -> None:
    a, b = Trace.of([first], n_instances=1), Trace.of([second, second, first], n_instances=2)
    both, one, other = price(a + b, device), price(a, device), price(b, device)
    assert both.energy_j == pytest.approx(one.energy_j + other.energy_j, rel=1e-9)
    assert both.cycles == pytest.approx(one.cycles + other.cycles, rel=1e-9)
    assert both.totals.macs == one.totals.macs + other.totals.macs
    assert both.n_instances == 3


@quick
@given(op=ops())
def test_layers_phases_and_kernels_sum_to_the_total(device: Device, op: Op) -> None:
    bill = price(Trace.of([op, op]), device)
    for split in (bill.by_phase, bill.by_layer, bill.by_kernel):
        assert sum(row.macs for row in split.values()) == bill.totals.macs
        assert sum(row.cycles for row in split.values()) == pytest.approx(bill.cycles, rel=1e-9)
        assert sum(row.energy_j for row in split.values()) == pytest.approx(bill.energy_j, rel=1e-9)


@quick
@given(op=mac_ops())
def test_two_batches_are_one_of_twice_the_size_in_macs(device: Device, op: Op) -> None:
    twice = dataclasses.replace(op, batch=2 * op.batch)
    products = [c.macs for c in kernel_costs(op, 1.0, device) if c.phase == op.report_phase]
    doubled = [c.macs for c in kernel_costs(twice, 1.0, device) if c.phase == op.report_phase]
    assert sum(doubled) == 2 * sum(products) == 2 * op.batch * op.layer.macs


@quick
@given(channels=st.integers(1, 8), phase=st.sampled_from(["error", "gradient"]), bits=BITS)
def test_halving_the_kept_channels_halves_macs_where_channels_are_skipped(
    device: Device, channels: int, phase: str, bits: int
) -> None:
    whole = Op(conv(8, 2 * channels, 8), Widths.uniform(bits), phase, "main", 1, 2 * channels)
    half = dataclasses.replace(whole, kept_channels=channels)
    full = sum(c.macs for c in kernel_costs(whole, 1.0, device) if c.phase == phase)
    kept = sum(c.macs for c in kernel_costs(half, 1.0, device) if c.phase == phase)
    skips = device.texts.get("zeros", "channels") != "none"
    assert kept == (full // 2 if skips else full)
    cycles = [total(kernel_costs(op, 1.0, device), "cycles") for op in (half, whole)]
    assert cycles[0] <= cycles[1]


@quick
@given(op=ops(), ratio=st.floats(0.1, 1.0))
def test_a_higher_clock_never_takes_longer(clocked: Device, op: Op, ratio: float) -> None:
    top = clocked.value("clock_hz")
    slow = configured(clocked, clock_mhz=top * ratio / 1e6)
    trace = Trace.of([op])
    assert price(trace, clocked).time_s <= price(trace, slow).time_s * (1 + 1e-9)


@quick
@given(
    channels=st.integers(1, 40), out=st.integers(1, 40), side=st.sampled_from([1, 4, 8]), bits=BITS,
    kernel=st.sampled_from([1, 3, 5]), stride=st.sampled_from([1, 2]), batch=st.integers(1, 3),
    phase=st.sampled_from(["forward", "error", "gradient"]), grows=st.booleans(),
    trains=st.sampled_from(["all", "none"]),
)  # fmt: skip
def test_more_channels_never_cost_fewer_cycles(
    device: Device,
    channels: int,
    out: int,
    side: int,
    bits: int,
    kernel: int,
    stride: int,
    batch: int,
    phase: str,
    grows: bool,
    trains: str,
) -> None:
    def cycles(n_in: int, n_out: int) -> float:
        layer = linear(n_in, n_out) if side == 1 and kernel == 1 else conv(n_in, n_out, side, kernel, stride)
        op = Op(layer, Widths.uniform(bits), phase, "main", batch, n_out, trains if phase != "gradient" else "all")
        return total(kernel_costs(op, 1.0, device), "cycles")

    more = cycles(channels + 1, out) if grows else cycles(channels, out + 1)
    assert cycles(channels, out) <= more * (1 + 1e-9)


@quick
@given(op=mac_ops())
def test_no_form_goes_below_the_bound_of_the_instruction_set(mcu: Device, op: Op) -> None:
    core = cores.core(mcu.texts["core"])
    bound = core.float_bound if op.widths.floating else core.bound
    (product,) = [c for c in kernel_costs(op, 1.0, mcu) if c.macs == op.macs and c.phase == op.report_phase]
    # depthwise backward loops leave out the products of the border, which macs count
    direct = form(op) == "depthwise" and op.phase != "forward"
    assert product.cycles >= bound * (trips(op).products if direct else op.macs) * (1 - 1e-9)


@quick
@given(op=mac_ops(), times=st.integers(1, 4))
def test_frozen_weights_are_read_from_flash_in_every_step(mcu: Device, op: Op, times: int) -> None:
    frozen = dataclasses.replace(op, phase="forward", trains="none")
    stored = {2: 2, 3: 4, 4: 4, 5: 8, 8: 8, 9: 16, 12: 16, 16: 16, 32: 32}[op.widths.weight_bits]
    expected = times * op.layer.n_weights * stored / 8
    assert price(Trace.of([frozen] * times), mcu).totals.flash_bytes == pytest.approx(expected)
    trained = dataclasses.replace(op, phase="forward", trains="all")
    assert price(Trace.of([trained]), mcu).totals.flash_bytes == 0


@quick
@given(op=mac_ops())
def test_flash_never_makes_weights_cheaper_than_sram(mcu: Device, op: Op) -> None:
    frozen = dataclasses.replace(op, phase="forward", trains="none", payer="uncertain")
    trained = dataclasses.replace(frozen, trains="all")
    cycles = [total(kernel_costs(o, 1.0, mcu), "cycles") for o in (trained, frozen)]
    assert cycles[0] <= cycles[1]


def test_an_unknown_kind_of_pass_raises(device: Device) -> None:
    op = Op(conv(2, 2, 4), Widths(), "forward", "main", 1, 2)
    object.__setattr__(op.layer, "kind", "attention")  # a kind that a later simulator may record
    with pytest.raises(HwmodelError, match="attention"):
        kernel_costs(op, 1.0, device)
