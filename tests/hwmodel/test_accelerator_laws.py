"""Pricing laws over random passes, on every accelerator profile."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwmodel import devices
from hwmodel.accelerator import kernel_costs
from hwmodel.arithmetic import Datapath
from hwmodel.devices import Device
from hwmodel.nests import nests
from hwmodel.operations import Layer, Op, Widths

ACCELERATORS = [name for name in devices.names() if devices.load(name).kind != "mcu"]
on_every_accelerator = pytest.mark.parametrize("name", ACCELERATORS)


@st.composite
def passes(draw: st.DrawFn) -> Op:
    """A forward, error or gradient pass of a dense or depthwise conv or a linear layer."""
    batch, phase = draw(st.integers(1, 4)), draw(st.sampled_from(["forward", "error", "gradient"]))
    c, k = draw(st.integers(1, 40)), 2 * draw(st.integers(1, 32))
    if draw(st.booleans()):
        layer = Layer("fc", "linear", ("x",), c, 1, 1, k, 1, 1, bias=draw(st.booleans()))
    else:
        side, kernel, stride = draw(st.integers(2, 20)), draw(st.sampled_from([1, 3, 5])), draw(st.sampled_from([1, 2]))
        groups = 1
        if draw(st.booleans()):
            c = groups = k
        layer = Layer(
            "conv", "conv", ("x",), c, side * stride, side * stride, k, side, side,
            kernel, kernel, stride, stride, groups,
        )  # fmt: skip
    return Op(layer, Widths(), phase, "main", batch, k)


def priced(op: Op, device: Device, density: float = 1.0) -> tuple[float, float, float, int]:
    """Energy, cycles, bytes moved and MACs of the pass's products (not of its requantizations)."""
    costs = [cost for cost in kernel_costs(op, density, device) if cost.phase == op.phase]
    return (
        sum(cost.energy_j for cost in costs),
        sum(cost.cycles for cost in costs),
        sum(cost.sram_bytes + cost.flash_bytes + cost.external_bytes for cost in costs),
        sum(cost.macs for cost in costs),
    )


def no_more(less: float, more: float) -> bool:
    return less <= more * (1 + 1e-9)


def at_bits(op: Op, bits: int) -> Op:
    return dataclasses.replace(op, widths=dataclasses.replace(Widths.uniform(bits), norm_bits=bits))


@cache
def load(name: str) -> Device:
    return devices.load(name)


@on_every_accelerator
@given(op=passes(), few=st.integers(2, 16), many=st.integers(2, 16))
def test_fewer_bits_never_cost_more(name, op, few, many):
    few, many = sorted((few, many))
    narrow, wide = (priced(at_bits(op, bits), load(name)) for bits in (few, many))
    assert all(no_more(a, b) for a, b in zip(narrow, wide, strict=True))


@on_every_accelerator
@given(op=passes())
def test_halving_kept_channels_halves_macs_where_channels_are_skipped_and_nothing_elsewhere(name, op):
    half = dataclasses.replace(op, kept_channels=op.layer.out_channels // 2)
    dense, pruned = (priced(one, load(name)) for one in (op, half))
    if op.phase == "forward" or load(name).texts.get("zeros") == "none":
        assert pruned == dense
    else:
        assert pruned[3] * 2 == dense[3]
        assert all(no_more(a, b) for a, b in zip(pruned, dense, strict=True))


@given(op=passes(), density=st.floats(0.1, 0.9))
@pytest.mark.parametrize("zeros", ["none", "channels", "gating", "skipping"])
def test_element_zeros_save_energy_where_gated_and_cycles_where_skipped(zeros, op, density):
    device = load("eyeriss").with_texts(zeros=zeros)
    dense, sparse = priced(op, device), priced(op, device, density)
    used = op.phase in ("error", "gradient")
    assert (sparse[0] < dense[0]) == (used and zeros in ("gating", "skipping"))
    assert sparse[1] <= dense[1]
    if zeros != "skipping":
        assert sparse[1] == dense[1]


def test_zeros_a_device_cannot_use_change_nothing():
    dense = load("eyeriss").with_texts(zeros="none")
    layer = Layer("c", "conv", ("x",), 8, 16, 16, 16, 16, 16, 3, 3)
    full, pruned = (priced(Op(layer, Widths(), "error", "main", 1, kept), dense) for kept in (16, 4))
    assert full == pruned


@on_every_accelerator
@given(op=passes())
def test_cycles_respect_the_peak_rate_and_traffic_is_compulsory(name, op):
    device = load(name)
    _, cycles, moved, macs = priced(op, device)
    assert cycles >= macs / _peak_macs_per_cycle(device)
    if "core" not in device.texts:  # cores keep operands in registers across a kernel's own loops
        assert moved >= sum(nest.n_input + nest.n_filter for nest in nests(op)[:1])  # each operand once, at 8 bits


def _peak_macs_per_cycle(device: Device) -> float:
    if device.kind == "roofline":
        return device.value("macs_per_cycle")
    peak = {
        "block": 128,  # the device's name
        "ne16": 9 * 9 * 16,  # 3 x 3 pixels x 9 taps (or 8 bits) x 16 channels
        "none": 0,
    }.get(device.texts["dataflow"], device.get("array.rows", 0) * device.get("array.cols", 0))
    return max(peak, 4 * device.get("cluster.cores", 0))  # four 8-bit products per Xpulp dot product


@pytest.mark.parametrize("name", [n for n in ACCELERATORS if devices.load(n).kind == "accelerator"])
def test_a_narrow_product_is_cheaper_than_a_wide_one(name):
    path = Datapath(load(name))
    assert path.mac_j(8, 8, False) < path.mac_j(32, 32, False)
    assert path.mac_j(8, 8, False) < path.mac_j(32, 32, True)


@on_every_accelerator
@given(op=passes(), more=st.integers(2, 3))
def test_more_channels_and_more_instances_never_cost_less(name, op, more):
    layer = op.layer
    if layer.groups == 1:
        wider = dataclasses.replace(
            op,
            layer=dataclasses.replace(layer, out_channels=more * layer.out_channels),
            kept_channels=more * op.kept_channels,
        )
        assert no_more(priced(op, load(name))[1], priced(wider, load(name))[1])
    longer = dataclasses.replace(op, batch=more * op.batch)
    assert no_more(priced(op, load(name))[1], priced(longer, load(name))[1])
    assert priced(longer, load(name))[3] == more * priced(op, load(name))[3]
