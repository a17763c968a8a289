"""Cycles and energy of microcontrollers, derived from the instruction tables by hand."""

from __future__ import annotations

import dataclasses

import pytest

from hwmodel import cores, devices, mcu
from hwmodel.cores import Library
from hwmodel.cost import KernelCost
from hwmodel.errors import HwmodelError
from hwmodel.operating_point import configured
from hwmodel.operations import Op, Widths
from hwmodel.pricing import price
from hwmodel.trace import Trace
from hwmodel.work import Work
from tests.hwmodel.ops import conv, linear

M4 = cores.core("cortex-m4")
SIMD = Library("", "", "", {}, ())


def costs(op: Op, device: str, **choices: str) -> dict[str, KernelCost]:
    return {c.kernel: c for c in mcu.kernel_costs(op, 1.0, configured(devices.load(device), **choices))}


def test_the_cortex_m4_form_of_a_3x3_convolution() -> None:
    """1.58 + 106/R + 9.1/K cycles per MAC with CMSIS-NN 7, before what silicon adds (R = 144, K = 32)."""
    layer = conv(16, 32, 16, bias=False)
    op = Op(layer, Widths(), "forward", "main", 1, 32, "none")
    library = cores.library("cmsis-nn-7")
    cycles = sum(mcu.core_cycles(w, False, M4, library) for w in mcu.works(op))
    assert cycles / layer.macs == pytest.approx(1.58 + 106 / 144 + 9.1 / 32, rel=5e-3)


def test_four_bit_weights_are_unpacked_once_for_two_products() -> None:
    byte = Work("conv", "forward", 1000, 1000, outputs=10, bits=(8, 8))
    nibble = dataclasses.replace(byte, bits=(8, 4), unpacked=500)
    extra = mcu.core_cycles(nibble, False, M4, SIMD) - mcu.core_cycles(byte, False, M4, SIMD)
    assert extra == pytest.approx(500 * 3.85)


def test_bits_on_resnet8_as_measured() -> None:
    """4-bit weights 1.74 x, 16-bit activations 1.24 x, float32 1.9 to 3.9 x the cycles of int8 (Cortex-M4)."""
    from hwmodel import network
    from hwmodel.schedule import inference

    def cycles(widths: Widths) -> float:
        trace = inference(network.load("resnet8"), widths)
        return price(trace, devices.load("stm32l4r5"), scope="inference", kernels="cmsis-nn-7").cycles

    byte = cycles(Widths())
    assert cycles(Widths(weight_bits=4)) / byte == pytest.approx(1.74, rel=0.1)
    assert cycles(Widths(activation_bits=16)) / byte == pytest.approx(1.24, rel=0.1)
    assert 1.9 < cycles(Widths.uniform(32)) / byte < 3.9


def test_an_update_takes_17_cycles_and_four_more_with_stochastic_rounding() -> None:
    op = Op(linear(10, 10), Widths(), "update", "main", 0, 10, "all", 1)
    table = {w.kernel: mcu.core_cycles(w, False, M4, SIMD) / w.units for w in mcu.works(op)}
    assert table["update"] + table["requantize_update"] == 17
    assert table["stochastic_rounding"] == 4


def test_small_batches_of_a_linear_layer_take_rank_one_updates() -> None:
    """One instance: each of the n m products is its own output, 6 cycles each, not 2.5 + 50."""
    work = Work("linear_gradient", "gradient", 1000, 1000, outputs=1000)
    assert mcu.core_cycles(work, False, M4, SIMD) == 6 * 1000
    many = Work("linear_gradient", "gradient", 64_000, 64_000, outputs=1000)
    assert mcu.core_cycles(many, False, M4, SIMD) == pytest.approx(2.5 * 64_000 + 50 * 1000)


def test_flash_is_streamed_without_a_cache_and_touched_once_with_one() -> None:
    work = Work("conv", "forward", 0, 0, weight_bytes=1000, reuse=50)
    bare = devices.load("stm32l4r5")
    assert mcu.flash_cycles(work, bare) == pytest.approx(bare.value("flash_stall") * 1000 * 50)
    cached = devices.load("stm32h7a3")
    assert mcu.flash_cycles(work, cached) == pytest.approx(cached.value("flash_stall") * 1000)
    large = dataclasses.replace(work, weight_bytes=20_000)  # more than the 16 Kbyte of cache
    assert mcu.flash_cycles(large, cached) == pytest.approx(cached.value("flash_stall") * 20_000 * 50)


def test_energy_is_the_power_of_the_engine_times_the_time() -> None:
    op = Op(conv(4, 4, 8), Widths(), "forward", "main", 1, 4)
    for kernels, watts in (("x-cube-ai-7", 0.0446), ("tflm", 0.0410), ("cmsis-nn-2022", 0.0518)):
        bill = price(Trace.of([op]), devices.load("stm32l4r5"), kernels=kernels)
        assert bill.energy_j == pytest.approx(watts * bill.time_s)


def test_half_the_clock_keeps_the_static_share_of_power() -> None:
    """No wait states in SRAM: twice the time, at 0.1 + 0.9 / 2 of the power, at 1.2 instead of 1.28 V in the core."""
    trace = Trace.of([Op(conv(4, 4, 8), Widths(), "forward", "main", 1, 4)])
    device = devices.load("stm32l4r5")
    full, half = price(trace, device), price(trace, device, clock_mhz=60)
    assert half.time_s == pytest.approx(2 * full.time_s)
    assert half.energy_j == pytest.approx(2 * (0.1 + 0.45 * 1.2 / 1.28) * full.energy_j)


def test_plain_c_has_no_im2col_and_no_transposes() -> None:
    layer = conv(16, 32, 16)
    for phase in ("forward", "error", "gradient"):
        names = costs(Op(layer, Widths(), phase, "main", 1, 32), "stm32l4r5", kernels="plain-c")
        assert not {"im2col", "transpose", "rotate"} & set(names)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"kernels": "cmsis-nn"}, "unknown kernel library 'cmsis-nn'; did you mean 'cmsis-nn-7'"),
        ({"kernels": "pulp-nn"}, "kernels 'pulp-nn' run on xpulp only; 'stm32l4r5' is a cortex-m4"),
        ({"clock_mhz": 200.0}, "runs at up to 120 MHz, not 200"),
        ({"clock_mhz": 0.0}, "runs at up to 120 MHz, not 0"),
    ],
)
def test_impossible_choices_are_named(choices: dict[str, object], message: str) -> None:
    with pytest.raises(HwmodelError, match=message):
        configured(devices.load("stm32l4r5"), **choices)  # type: ignore[arg-type]


def test_an_unknown_core_or_kernel_is_named() -> None:
    with pytest.raises(HwmodelError, match="unknown core 'cortex-m5'"):
        cores.core("cortex-m5")
    with pytest.raises(HwmodelError, match="core 'cortex-m4': unknown kernel 'attention'"):
        M4.unit_cycles("attention")


@pytest.mark.parametrize("name", cores.core_names())
def test_every_core_prices_every_kernel_in_integers_and_floats(name: str) -> None:
    core = cores.core(name)
    for kernel in M4.integer:
        assert core.unit_cycles(kernel) >= 0
        if "requantize" not in kernel and kernel != "stochastic_rounding":
            assert core.unit_cycles(kernel, floating=True) > 0


def test_a_stated_operating_point_overrides_the_scaled_power() -> None:
    point = """
points.low.clock_hz = { value = 60e6, unit = "Hz", source = "s", basis = "datasheet" }
points.low.power_w = { value = 0.02, unit = "W", source = "s", basis = "datasheet" }
"""
    text = """kind = "mcu"
title = "a board"
basis = "predicted from the cortex-m4 family"
core = "cortex-m4"
kernels = "hale"
clock_hz = { value = 120e6, unit = "Hz", source = "s", basis = "datasheet" }
supply_v = { value = 3.0, unit = "V", source = "s", basis = "datasheet" }
sram_bytes = { value = 1e6, unit = "byte", source = "s", basis = "datasheet" }
flash_bytes = { value = 1e6, unit = "byte", source = "s", basis = "datasheet" }
power.default = { value = 0.05, unit = "W", source = "s", basis = "datasheet" }
"""
    device = devices.parse(text + point, "board", "board.toml")
    assert configured(device, clock_mhz=60).value("power.default") == 0.02
    assert configured(device, clock_mhz=30).value("power.default") == pytest.approx(0.05 * (0.1 + 0.9 / 4))
