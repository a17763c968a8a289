"""Bills: scopes, savings, memory, JSON form and speed."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from hwmodel import devices, network, pricing
from hwmodel.bill import CR2032_J
from hwmodel.errors import HwmodelError
from hwmodel.operations import REPORT_PHASES, Widths
from hwmodel.pricing import price
from hwmodel.schedule import Schedule, filtered_step, inference

RESNET = network.load("resnet8")
STEP = Schedule(RESNET, Widths())
L4 = devices.load("stm32l4r5")
WANTED = {
    "device", "kernels", "scope", "n_instances", "energy_j", "cycles", "time_s", "peak_ram_bytes", "flash_bytes",
    "fits", "basis", "saved_energy_vs_fp32", "saved_energy_vs_same_bits", "by_phase", "by_layer",
}  # fmt: skip


def test_the_json_of_a_bill() -> None:
    data = json.loads(json.dumps(price(STEP.step(2), L4, schedule=STEP).to_json()))
    assert set(data) >= WANTED
    assert (data["device"], data["kernels"], data["scope"], data["n_instances"]) == (
        "stm32l4r5",
        "x-cube-ai-7",
        "step",
        2,
    )
    assert tuple(data["by_phase"]) == REPORT_PHASES
    assert {"layer", "kind", "phase", "macs", "cycles", "energy_j"} == set(data["by_layer"][0])
    assert sum(row["macs"] for row in data["by_layer"]) == STEP.step(2).macs()
    assert data["cr2032_lasts"] == pytest.approx(CR2032_J / data["energy_j"])
    assert pytest.approx(2430) == CR2032_J  # 0.225 A x 3600 s x 3 V
    assert any("extrapolation" in note for note in data["notes"])


@pytest.mark.parametrize("name", devices.names())
def test_macs_by_phase_are_those_of_the_trace(name: str) -> None:
    trace = STEP.step(2)
    bill = price(trace, devices.load(name))
    assert {phase: sums.macs for phase, sums in bill.by_phase.items()} == trace.macs_by_phase()


def test_savings_are_one_minus_the_ratio_to_the_baseline() -> None:
    trace, floats = STEP.step(1), STEP.dense(Widths.uniform(32)).step(1)
    bill = price(trace, L4, baselines={"fp32": floats, "same_bits": trace.repeated(4)})
    assert bill.saved_energy_vs_fp32 == pytest.approx(1 - bill.energy_j / price(floats, L4).energy_j)
    assert bill.saved_energy_vs_same_bits == pytest.approx(0.75)  # a quarter of four such steps
    assert price(trace, L4).saved_energy_vs_fp32 is None


def test_memory_is_that_of_the_largest_step_of_a_filtered_run() -> None:
    from hwmodel.memory import peak

    guard = Schedule(network.load("resnet8-a-slim"), Widths())
    trace = filtered_step(STEP, 8, 2, 1, guard) + filtered_step(STEP, 8, 3, 1, guard)
    bill = price(trace, L4, schedule=STEP, filter_schedule=guard, scope="run")
    assert bill.memory is not None
    assert bill.memory.peak_ram_bytes == peak(STEP, 3, guard, 8, device=L4, n_uncertain=1).peak_ram_bytes


def test_what_does_not_fit_names_its_tenants_and_a_cure() -> None:
    data = price(STEP.step(1), devices.load("stm32g0b1"), schedule=STEP).to_json()
    assert data["fits"] is False
    assert data["ram_left_bytes"] == 144 * 1024 - data["peak_ram_bytes"] < 0
    assert data["cure"]
    sizes = [tenant["n_bytes"] for tenant in data["tenants"]]
    assert sizes == sorted(sizes, reverse=True)


def test_without_a_schedule_memory_is_unknown() -> None:
    data = price(STEP.step(1), L4).to_json()
    assert (data["peak_ram_bytes"], data["fits"]) == (None, None)


def test_an_unknown_scope_is_named() -> None:
    with pytest.raises(HwmodelError, match="unknown scope 'epoch'"):
        price(STEP.step(1), L4, scope="epoch")


def test_an_accelerator_runs_no_kernel_library() -> None:
    with pytest.raises(HwmodelError, match="'eyeriss' runs no kernel library"):
        price(STEP.step(1), devices.load("eyeriss"), kernels="hale")


@pytest.mark.parametrize("name", devices.names())
def test_an_inference_is_estimated_in_half_a_second(name: str) -> None:
    pricing.cache_clear()
    start = time.process_time()
    trace = inference(RESNET, Widths())
    frozen = frozenset(layer.name for layer in RESNET.folded().layers)
    price(
        trace, devices.load(name), schedule=Schedule(RESNET.folded(), Widths(), frozen=frozen), scope="inference"
    ).to_json()
    assert time.process_time() - start < 0.5


def test_a_step_of_resnet110_on_20_devices_takes_less_than_a_second() -> None:
    trace = Schedule(network.load("resnet110"), Widths()).step(1)
    twenty = [devices.load(name) for name in devices.names()[:20]]
    pricing.cache_clear()
    start = time.process_time()
    bills = [price(trace, device) for device in twenty]
    assert time.process_time() - start < 1.0
    assert len({bill.totals.macs for bill in bills}) == 1


def test_pricing_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\nfor name in ('torch', 'numpy', 'qtrain'): sys.modules[name] = None\n"
        "from hwmodel import devices, network, pricing\nfrom hwmodel.operations import Widths\n"
        "from hwmodel.schedule import Schedule\n"
        "step = Schedule(network.load('resnet8'), Widths())\n"
        "print(pricing.price(step.step(1), devices.load('stm32l4r5'), schedule=step).to_json()['fits'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
