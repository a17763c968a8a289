"""What pruning an error map costs: choosing channels, thinning elements, both; by hand and on every device."""

from __future__ import annotations

import dataclasses

import pytest

from hwmodel import devices, network
from hwmodel.accelerator import kernel_costs
from hwmodel.bill import Bill
from hwmodel.errors import HwmodelError
from hwmodel.kernels import works
from hwmodel.operations import Op, Widths
from hwmodel.pricing import price
from hwmodel.schedule import Schedule
from hwmodel.trace import Trace
from tests.hwmodel.ops import conv

BATCH = 2
LAYER = conv(4, 6, 8)
N = BATCH * 6 * 8 * 8  # elements of the error map
N_WEIGHTS = 6 * 4 * 3 * 3
DENSE = Schedule(network.load("lenet5"), Widths())


def thinning(bits: int = 8) -> Op:
    return Op(LAYER, Widths.uniform(bits), "thin", "main", BATCH, 6)


def units(op: Op) -> dict[str, float]:
    return {work.kernel: work.units for work in works(op)}


def test_thinning_looks_at_every_element_draws_for_it_and_writes_it_back() -> None:
    assert units(thinning()) == {"thin": N, "stochastic_rounding": N}
    assert thinning().macs == 2 * N  # |g| into the mean, |g| times 1 / tau
    for bits, n_bytes in ((8, N), (4, N / 2), (32, 4 * N)):
        assert sum(work.sram_bytes for work in works(thinning(bits))) == 2 * n_bytes  # read, written


@pytest.mark.parametrize(
    ("importance", "expected"),
    [(("error",), N), (("weight",), N_WEIGHTS), (("error", "weight"), N + N_WEIGHTS)],
)
def test_a_selection_sums_the_norms_it_chooses_by(importance: tuple[str, ...], expected: int) -> None:
    """At 8 bits each element read is a byte. Six channels are sorted, three comparisons deep, by sums of 4 bytes."""
    op = Schedule(network.load("lenet5"), Widths(), importance=importance).op(LAYER, "select", BATCH)
    assert units(op) == {"select": expected, "sort": 6 * 3}
    assert op.macs == expected
    assert sum(work.sram_bytes for work in works(op)) == expected + 4 * 6


def test_thinning_on_a_vector_unit_by_hand() -> None:
    """Six operations an element and three for its random bits, on 12 lanes; N bytes in and N out of the buffer, which
    moves 110 a cycle and so waits for the lanes."""
    device = devices.load("systolic-14x12")
    cycles = 6 * N / 12 + 3 * N / 12
    assert 2 * N / 110 < 6 * N / 12
    energy = 9 * N * 0.1e-12 + 2 * N * 5.2e-12 + 0.005 * cycles / device.value("clock_hz")
    costs = kernel_costs(thinning(), 1.0, device)
    assert sum(cost.cycles for cost in costs) == pytest.approx(cycles)
    assert sum(cost.energy_j for cost in costs) == pytest.approx(energy)


@pytest.mark.parametrize(("bits", "thin", "select"), [(8, 8, 3), (32, 11, 4)])
def test_thinning_on_a_cortex_m4_by_hand(bits: int, thin: int, select: int) -> None:
    """8 cycles an element where a selection has 3, in float32 11 where it has 4; an integer draw of 4 in both. What
    measurements add is one factor on all of them (with integers and with floats another)."""
    device = devices.load("stm32l4r5")
    chosen = Op(LAYER, Widths.uniform(bits), "select", "main", BATCH, 6)
    cycles = {row: sums.cycles for row, sums in price(Trace.of([thinning(bits), chosen]), device).by_kernel.items()}
    a_cycle = cycles["select"] / (select * N)
    assert cycles["thin"] == pytest.approx(thin * N * a_cycle)
    assert cycles["stochastic_rounding"] == pytest.approx(4 * N * a_cycle)


def bill(device: str, bits: int, **pruning: object) -> Bill:
    schedule = dataclasses.replace(DENSE, widths=Widths.uniform(bits), **pruning)  # type: ignore[arg-type]
    return price(schedule.step(BATCH), devices.load(device))


@pytest.mark.parametrize("bits", [8, 32])
@pytest.mark.parametrize("name", devices.names())
def test_doing_both_costs_the_selection_and_the_thinning(name: str, bits: int) -> None:
    dense, thinned = bill(name, bits), bill(name, bits, thinned=True)
    chosen, both = bill(name, bits, prune_keep=0.5), bill(name, bits, prune_keep=0.5, thinned=True)
    for field in ("energy_j", "cycles"):
        added = getattr(thinned, field) - getattr(dense, field)
        assert added > 0
        assert getattr(both, field) - getattr(chosen, field) == pytest.approx(added, rel=1e-6)
    for phase, own in (("select", chosen), ("thin", thinned)):
        assert both.by_phase[phase].to_json() == own.by_phase[phase].to_json()
        assert own.by_phase[phase].energy_j > 0
    assert thinned.by_phase["select"].energy_j == chosen.by_phase["thin"].energy_j == 0
    n_out = sum(layer.n_out for layer in DENSE.network.layers if layer.kind == "conv")
    assert thinned.totals.macs - dense.totals.macs == 2 * BATCH * n_out


def test_thinning_more_instances_or_wider_errors_costs_more() -> None:
    more = dataclasses.replace(thinning(), batch=BATCH + 1)
    for name in devices.names():
        energy = [price(Trace.of([op]), devices.load(name)).energy_j for op in (thinning(), more)]
        assert energy[0] < energy[1]
    narrow, wide = (sum(work.sram_bytes for work in works(thinning(bits))) for bits in (8, 16))
    assert wide == 2 * narrow


def test_the_working_memory_of_thinning_is_none() -> None:
    """The threshold is predicted, the error pruned in place."""
    memory = [price(s.step(BATCH), devices.load("stm32l4r5"), schedule=s).memory
              for s in (DENSE, dataclasses.replace(DENSE, thinned=True))]  # fmt: skip
    assert memory[0] is not None
    assert memory[1] is not None
    assert memory[0].peak_ram_bytes == memory[1].peak_ram_bytes


def test_records_read_back_and_those_without_thinnings_price_are_refused() -> None:
    schedule = dataclasses.replace(DENSE, prune_keep=0.5, thinned=True, importance=("error", "weight"))
    assert Schedule.from_json(schedule.to_json()) == schedule
    assert Trace.from_json(schedule.step(BATCH).to_json()) == schedule.step(BATCH)
    before = {key: value for key, value in schedule.to_json().items() if key != "importance"}
    with pytest.raises(HwmodelError, match="schedule: importance is missing"):
        Schedule.from_json(before)
    assert Schedule.from_json(before | {"thinned": False}).importance == ("error",)
