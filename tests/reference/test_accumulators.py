"""Accumulators that wrap or saturate, and weights with an exponent a channel, against the integer reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.integers import power_of_two
from qtrain.formats.rounding import ROUNDINGS
from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.accumulator import MODES, Accumulator
from qtrain.layers.channels import ChannelQuantizer, ChannelTensor, own_units, shared_units
from qtrain.layers.exact import sums_bound
from qtrain.layers.quantizer import Clock
from qtrain.verification import steps, verify_module
from tests.reference.networks import Chain, EveryLayer, batches, seeded


@settings(max_examples=10, deadline=None)
@given(
    accumulator=st.integers(8, 24), mode=st.sampled_from(MODES), bits=st.sampled_from([4, 8, 12]),
    granularity=st.sampled_from(["per-tensor", "per-channel"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_accumulator_agrees_with_the_reference(
    accumulator: int, mode: str, bits: int, granularity: str, seed: int
) -> None:
    """At 12 bits the smallest of them overflow in every pass, at 4 the largest in none."""
    rule = {"accumulator_bits": accumulator, "accumulator": mode}
    plan = NumberPlan.fixed(bits, seed=seed, layers={"*": rule}, weight_granularity=granularity)
    report = verify_module(seeded(EveryLayer, seed), (2, 8, 8), plan, batches(2, seed=seed))
    assert report["first_mismatch"] is None


@pytest.mark.parametrize("mode", MODES)
def test_overflows_of_all_three_passes_are_counted_alike_by_both_sides(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets: list[QuantizedNetwork] = []

    def remembered(*args: Any, **kwargs: Any) -> QuantizedNetwork:
        nets.append(quantize(*args, **kwargs))
        return nets[-1]

    monkeypatch.setattr(steps, "quantize", remembered)
    plan = NumberPlan.fixed(8, layers={"hidden": {"accumulator_bits": 12, "accumulator": mode}})
    report = verify_module(seeded(Chain), (2, 8, 8), plan, batches(2))
    assert report["mismatches"] == 0
    rows = {layer["layer"]: layer["passes"] for layer in report["layers"]}
    mine = nets[0].accumulators()
    for which in ("forward", "error", "gradient"):
        assert rows["hidden"][which]["accumulator_overflows"] == mine["hidden"].overflows[which] > 0
        assert rows["hidden"][which]["accumulator_bits"] == mine["hidden"].needed_bits[which] > 12
    assert mine["conv"].overflows == {}  # 32 bits: proved, not looked at


@given(
    terms=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=30),
    bits=st.integers(8, 20), exponent=st.integers(-40, 10), random=st.randoms(use_true_random=False),
)  # fmt: skip
def test_wrapping_does_not_depend_on_the_order_of_the_sum(
    terms: list[int], bits: int, exponent: int, random: Any
) -> None:
    """A device's register wraps at every addition; the simulator once, at the end: two's complement is a ring."""
    random.shuffle(terms)
    register, half = 0, 1 << (bits - 1)
    for term in terms:
        register = (register + term + half) % (2 * half) - half
    unit = 2.0**exponent
    total = torch.tensor([sum(terms) * unit], dtype=torch.float64)
    held = Accumulator(bits, "wrap").hold(total, unit, "forward", math.inf)
    assert float(held[0]) == register * unit
    clipped = Accumulator(bits, "saturate").hold(total, unit, "forward", math.inf)
    assert float(clipped[0]) == min(max(sum(terms), -half), half - 1) * unit


def test_the_ends_of_the_range_are_held_and_what_lies_beyond_is_counted() -> None:
    accumulator = Accumulator(8, "wrap")
    ends = torch.tensor([-128.0, 127.0])
    assert accumulator.hold(ends, 1.0, "error", math.inf) is ends
    assert accumulator.hold(torch.tensor([-129.0, 128.0, 0.0]), 1.0, "error", math.inf).tolist() == [127, -128, 0]
    assert accumulator.overflows == {"error": 2}
    assert accumulator.needed_bits == {"error": 9}
    proved = torch.tensor([300.0])
    assert accumulator.hold(proved, 1.0, "error", 127.0) is proved  # not looked at


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), groups=st.sampled_from([1, 2, 4]), transposed=st.booleans(), top=st.integers(8, 25))
def test_no_partial_sum_exceeds_its_bound(seed: int, groups: int, transposed: bool, top: int) -> None:
    """Against the sum of all products' magnitudes, which no partial sum exceeds in any order."""
    g = torch.Generator().manual_seed(seed)
    exponents = torch.randint(-8, 1, (8,), generator=g)
    codes = torch.randint(-127, 128, (8, 8 // groups, 3, 3), generator=g).float()
    weight = ChannelTensor(codes * power_of_two(exponents).float().view(-1, 1, 1, 1), int(exponents.min()), exponents)
    x = torch.randint(0 if not transposed else -127, 256 if not transposed else 128, (2, 8, 5, 5), generator=g).float()
    turn = F.conv_transpose2d if transposed else F.conv2d
    sums = turn(x.abs().double(), weight.values.abs().double(), groups=groups)
    units = shared_units(weight, groups) if transposed else own_units(weight)
    assert isinstance(units, Tensor)
    per_channel = units.repeat_interleave(8 // groups) if transposed else units
    reached = float((sums / per_channel.view(1, -1, 1, 1)).max())
    assert reached <= sums_bound(
        weight.values, units, FixedTensor(x, 0), groups, 2.0**top, transposed=transposed
    )  # fmt: skip


def point(bits: int = 8, rounding: str = "nearest-even", scale: str = "dynamic") -> ChannelQuantizer:
    return ChannelQuantizer(FixedPoint(bits), rounding, scale, 1, "layer.weight")


def test_a_channels_exponent_is_its_own_and_at_most_eight_below_the_largest() -> None:
    """127 x 2^-7 holds 0.99, 127 x 2^-10 holds 0.124, 2^-14 and zeros would go further down than -15."""
    x = torch.tensor([[0.99, 0.0], [0.0, -0.124], [2.0**-14, 0.0], [0.0, 0.0]])
    stored = point()(x, Clock(0, 0))
    assert isinstance(stored, ChannelTensor)
    assert stored.exponents is not None
    assert stored.exponents.tolist() == [-7, -10, -15, -15]
    assert stored.exponent == -15
    assert stored.values[2].tolist() == [2.0**-14, 0.0]


@given(seed=st.integers(0, 10**6), bits=st.integers(2, 8), rounding=st.sampled_from(ROUNDINGS))
def test_channels_never_mix(seed: int, bits: int, rounding: str) -> None:
    """A change within channel 0 that leaves the largest channel alone moves no other channel by a bit."""
    x = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(seed))
    x[4] *= 8
    changed = x.clone()
    changed[0] *= 0.3
    one, other = (point(bits, rounding)(t, Clock(0, 0)).values for t in (x, changed))
    assert torch.equal(one[1:], other[1:])


def test_other_exponent_rules_are_refused() -> None:
    with pytest.raises(QtrainError, match="exponents per channel are dynamic"):
        quantize(seeded(Chain), (2, 8, 8), NumberPlan.fixed(8, weight_granularity="per-channel", weight_scale="static"))


def test_real_scales_per_channel_are_refused_with_the_reason() -> None:
    plan = NumberPlan.fixed(8, weight_granularity="per-channel", layers={"hidden": {"weight_format": "int"}})
    with pytest.raises(QtrainError, match=r"hidden\.weight.*only power-of-two scales can be aligned"):
        quantize(seeded(Chain), (2, 8, 8), plan)


class Depthwise(nn.Module):
    """Groups of one, of two, and all channels in one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3)
        self.depthwise = nn.Conv2d(4, 8, 3, groups=4)
        self.last = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.depthwise(torch.relu(self.first(x)))).flatten(1))


@pytest.mark.parametrize("bits", [2, 5, 8, 16])
def test_channels_of_very_different_size_meet_exactly(bits: int) -> None:
    """Channels 2^-12 to 2^0: some exponents are held up, the others shift by up to eight bits. What the error pass
    needs of the accumulator is more than with one exponent."""
    module = seeded(Depthwise)
    for layer in (module.first, module.depthwise, module.last):
        sizes = 2.0 ** -torch.linspace(0, 12, len(layer.weight)).round()  # type: ignore[arg-type]
        layer.weight.data *= sizes.view(-1, *[1] * (layer.weight.dim() - 1))  # type: ignore[union-attr,operator]
    plan = NumberPlan.fixed(bits, weight_granularity="per-channel")
    assert verify_module(module, (2, 8, 8), plan, batches(2))["first_mismatch"] is None
