"""Accelerator profiles against measurements and against the vendor's own estimator."""

from __future__ import annotations

import dataclasses

import pytest

from hwmodel import devices
from hwmodel.accelerator import kernel_costs
from hwmodel.devices import Device
from hwmodel.network import load
from hwmodel.operating_point import configured
from hwmodel.operations import PRUNING, REPORT_PHASES, Layer, Op, Widths
from hwmodel.pricing import price
from hwmodel.schedule import Schedule, filtered_step, inference

GAP9_ROWS = {  # MLPerf Tiny v1.0: latency s and energy J at 240 MHz, 0.65 V, then at 370 MHz, 0.80 V
    "resnet8": ((0.949e-3, 27.71e-6), (0.616e-3, 40.36e-6)),
    "dscnn": ((0.732e-3, 18.56e-6), (0.476e-3, 26.66e-6)),
    "mobilenetv1-0.25": ((1.733e-3, 40.80e-6), (1.125e-3, 58.36e-6)),
    "autoencoder": ((0.271e-3, 5.252e-6), (0.176e-3, 7.294e-6)),
}


def gap9_points() -> list[Device]:
    device = devices.load("gap9")
    return [configured(device, clock_mhz=240), device]


@pytest.mark.parametrize("network", GAP9_ROWS)
def test_gap9_latency_and_energy_of_mlperf_tiny(network):
    for device, (latency_s, energy_j) in zip(gap9_points(), GAP9_ROWS[network], strict=True):
        bill = price(inference(load(network), Widths()), device, scope="inference")
        assert bill.time_s == pytest.approx(latency_s, rel=0.15)
        given_latency = bill.energy_j + device.value("static_w") * (latency_s - bill.time_s)
        assert given_latency == pytest.approx(energy_j, rel=0.10)


VELA_TOTAL_CYCLES = {  # ethos-u-vela 5.2.0, ethos-u55-128, default system; models of benchmarks/accelerators
    "resnet8": 211382,
    "mobilenetv1-0.25": 365178,
    "dscnn": 88913,
    "autoencoder": 281520,
}


@pytest.mark.parametrize("network", VELA_TOTAL_CYCLES)
def test_ethos_u55_total_cycles_as_vela_estimates_them(network):
    bill = price(inference(load(network), Widths()), devices.load("ethos-u55-128"), scope="inference")
    assert bill.cycles == pytest.approx(VELA_TOTAL_CYCLES[network], rel=0.10)


@pytest.mark.parametrize(("bits", "speedup"), [(4, 6.0), (2, 8.0)])
def test_packed_dot_products_against_a_cluster_that_must_unpack(bits, speedup):
    """Garofalo et al., XpulpNN: 6x and 8x on 4- and 2-bit convolutions over a cluster with 8-bit dot products only."""
    device = devices.load("xpulp-cluster8")
    unpacking = dataclasses.replace(
        device, constants={key: c for key, c in device.constants.items() if key != "cluster.min_bits"}
    )
    layer = Layer("conv", "conv", ("x",), 32, 16, 16, 64, 16, 16, 3, 3)
    op = Op(layer, dataclasses.replace(Widths.uniform(bits), norm_bits=bits), "forward", "main", 1, 64)
    packed, unpacked = (
        sum(cost.cycles for cost in kernel_costs(op, 1.0, d) if cost.kernel in ("conv", "im2col"))
        for d in (device, unpacking)
    )
    assert unpacked / packed == pytest.approx(speedup, rel=0.3)


def test_two_bit_filters_run_faster_on_the_bit_serial_engine_and_on_packed_dot_products():
    network = load("resnet8")
    for name, least in (("gap9", 1.5), ("xpulp-cluster8", 1.3)):
        device = devices.load(name)
        wide, narrow = (
            price(inference(network, Widths.uniform(bits)), device, scope="inference").cycles for bits in (8, 2)
        )
        assert wide / narrow > least


@pytest.mark.parametrize("name", [n for n in devices.names() if devices.load(n).kind != "mcu"])
def test_every_kernel_of_a_pruned_filtered_step_has_a_price(name):
    device = devices.load(name)
    for bits in (8, 32):
        for network in ("resnet8", "lenet", "mobilenetv1-0.25", "autoencoder"):
            main = Schedule(load(network), Widths.uniform(bits), momentum=True, prune_keep=0.5, thinned=True)
            filter_net = Schedule(load("slim-lenet"), Widths.uniform(bits))
            bill = price(filtered_step(main, 4, 2, 1, filter_net), device)
            assert bill.totals.macs > 0
            phases = [phase for phase, sums in bill.by_phase.items() if sums.cycles > 0 and sums.energy_j > 0]
            if bits == 8:
                without = set(PRUNING) if network == "autoencoder" else set()  # only convolutions are pruned
                assert set(phases) == set(REPORT_PHASES) - without
