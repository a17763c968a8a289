"""One table of checks over every format there is a name for: a new one is tested the moment it exists."""

import math
import re

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtrain.errors import QtrainError
from qtrain.formats.base import Format
from qtrain.formats.block import BlockFloat, Microscaling
from qtrain.formats.fixed import FixedPoint
from qtrain.formats.minifloat import Minifloat
from qtrain.formats.noise import Stream
from qtrain.formats.registry import NAMED, by_name, names
from qtrain.formats.rounding import ROUNDINGS
from qtrain.formats.scaled import OwnFixedPoint, ScaledInteger

WIDTHS = re.compile(r"(fixed|int|bfp)(2|4|8|16)(-.*)?")
CHECKED = [name for name in names() if name in NAMED or WIDTHS.fullmatch(name)]
every = pytest.mark.parametrize("name", CHECKED)
STREAM = Stream(0, 1, 2)


def sample(seed: int = 0, n: int = 4, channels: int = 40) -> torch.Tensor:
    """Numbers over a few binades, both signs, zeros among them."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, 3, generator=g) * 2.0 ** torch.randint(-6, 3, (n, channels, 3), generator=g)
    return torch.where(torch.rand(x.shape, generator=g) < 0.05, 0.0, x)


@every
def test_it_is_a_frozen_format(name: str) -> None:
    fmt = by_name(name)
    assert isinstance(fmt, Format)
    assert hash(fmt) == hash(by_name(name))
    with pytest.raises((AttributeError, TypeError)):
        fmt.bits = 3  # type: ignore[misc]


@every
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_representable_numbers_stay_under_every_rounding(name: str, rounding: str) -> None:
    fmt, x = by_name(name), sample()
    scale = fmt.scale_for(x)
    once = fmt.quantize(x, "nearest-even", scale=scale)
    for step in range(5):
        assert torch.equal(fmt.quantize(once, rounding, Stream(0, step, 3), scale), once)


@every
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_it_saturates_keeps_order_zero_shape_and_dtype(name: str, seed: int) -> None:
    fmt, x = by_name(name), sample(seed)
    scale = fmt.scale_for(x)
    low, high = fmt.limits(scale)
    far = fmt.quantize(x * 1e4, "nearest-even", scale=scale)
    assert bool((far.double() <= high * (1 + 1e-6)).all())
    assert bool((far.double() >= low * (1 + 1e-6)).all())
    q = fmt.quantize(x, scale=scale)
    assert q.shape == x.shape
    assert q.dtype == x.dtype
    assert bool((q[x == 0] == 0).all())
    more = fmt.quantize(x + x.abs() * 0.3, scale=scale)
    assert bool((more >= q).all())  # element by element: a larger number never gets a smaller one


@pytest.mark.parametrize("name", [name for name in CHECKED if by_name(name).bits <= 8])
def test_at_most_two_to_the_bits_levels(name: str) -> None:
    fmt = by_name(name)
    magnitudes = torch.cat([torch.linspace(0, 1, 3000), torch.logspace(-9, 0, 3000)])
    x = torch.cat([magnitudes, -magnitudes]).view(1, 1, -1) * 3.0
    scale = fmt.scale_for(torch.full_like(x, 3.0))  # the same grid everywhere
    assert len(fmt.quantize(x, scale=scale).unique()) <= 2**fmt.bits


@pytest.mark.parametrize("name", [name for name in CHECKED if by_name(name).bits <= 8])
def test_every_level_stays_under_every_rounding(name: str) -> None:
    """All codes: 40,001 points up to twice the maximum that the scale is made for, and as many close to 0, meet every
    level of up to 8 bits."""
    fmt = by_name(name)
    steps = torch.linspace(-3, 3, 40_001, dtype=torch.float64)
    x = torch.cat([steps, 3.0 * torch.sign(steps) * 2.0 ** -(20 * (1 - steps.abs() / 3))]).view(1, 1, -1)
    scale = fmt.scale_for(torch.full_like(x, 3.0) if not name.endswith("affine") else x)
    levels = fmt.quantize(2 * x, scale=scale)
    if name.startswith(("fixed", "int")):  # symmetric codes, or all of them
        assert len(levels.unique()) == 2**fmt.bits - (not name.endswith("affine"))
    for rounding in ROUNDINGS:
        for step in range(3):
            assert torch.equal(fmt.quantize(levels, rounding, Stream(0, step, 5), scale), levels)


@every
def test_nearest_halves_a_step_at_most_and_stochastic_takes_a_neighbour(name: str) -> None:
    fmt, x = by_name(name), sample()
    scale = fmt.scale_for(x)
    low, high = (limit.expand(x.shape) for limit in fmt.limits(scale))
    inside = (x.double() < high) & (x.double() > low)
    down = fmt.quantize(x, "floor", scale=scale)
    near, drawn = fmt.quantize(x, scale=scale), fmt.quantize(x, "stochastic", STREAM, scale)
    up = -fmt.quantize(-x, "floor", scale=scale) if not isinstance(fmt, ScaledInteger) or not fmt.affine else None
    if up is None:
        return
    nearest = torch.minimum((x - down).abs(), (up - x).abs())
    assert torch.equal(((x - near).abs() <= nearest + 1e-6 * x.abs())[inside], torch.ones_like(inside)[inside])
    assert bool(((drawn == down) | (drawn == up))[inside].all())


@every
def test_stochastic_rounding_is_unbiased_mirrored_and_seeded(name: str) -> None:
    """The mean of n draws between neighbours d apart deviates by at most d / (2 sqrt n); 6 of that is never seen."""
    fmt = by_name(name)
    n = 4000
    x = torch.full((n, 2, 1), 0.4217)
    x[:, 1] = 0.75  # the largest of every block and row: one scale everywhere
    stream = Stream(1, 2, 3)
    torch.manual_seed(0)
    drawn = fmt.quantize(x, "stochastic", stream)
    torch.manual_seed(1)
    assert torch.equal(drawn, fmt.quantize(x, "stochastic", stream))
    first = drawn[:, 0, 0].double()
    gap = float(first.max() - first.min())
    # + the noise's own 2^-24, a real scale's float32 rounding, and formats finer than float32's step
    assert abs(float(first.mean()) - float(x[0, 0, 0])) <= 6 * gap / (2 * math.sqrt(n)) + 1e-6
    if gap > 1e-6:
        assert not torch.equal(drawn, fmt.quantize(x, "stochastic", Stream(2, 2, 3)))
    if not (isinstance(fmt, ScaledInteger) and fmt.affine):
        assert torch.equal(fmt.quantize(-x, "stochastic", stream), -drawn)


@pytest.mark.parametrize("name", ["fixed8-channel", "int8-channel", "bfp8", "mxfp8-e4m3", "mxint8"])
def test_one_slice_never_moves_another(name: str) -> None:
    """Blocks lie along axis 1, channels of weights along axis 0: a change in row 0 leaves row 1 alone."""
    fmt, x = by_name(name), sample()
    changed = x.clone()
    changed[0] *= 1000
    assert torch.equal(fmt.quantize(x)[1:], fmt.quantize(changed)[1:])


DTYPES = [
    (by_name("e4m3"), ml_dtypes.float8_e4m3fn), (by_name("e5m2"), ml_dtypes.float8_e5m2),
    (by_name("e3m2"), ml_dtypes.float6_e3m2fn), (by_name("e2m3"), ml_dtypes.float6_e2m3fn),
    (by_name("e2m1"), ml_dtypes.float4_e2m1fn), (by_name("e3m4"), ml_dtypes.float8_e3m4),
    (by_name("e4m3"), None), (by_name("bfloat16"), ml_dtypes.bfloat16), (by_name("float16"), np.float16),
]  # fmt: skip


@pytest.mark.parametrize(("fmt", "dtype"), [pair for pair in DTYPES if pair[1] is not None])
def test_minifloats_agree_with_ml_dtypes_code_for_code(fmt: Minifloat, dtype: type) -> None:
    codes = np.arange(2**fmt.bits, dtype=np.uint16 if fmt.bits > 8 else np.uint8).view(dtype)
    values = codes.astype(np.float32)
    finite = torch.from_numpy(values[np.isfinite(values)])
    assert float(finite.abs().max()) == fmt.max_value
    assert torch.equal(fmt.quantize(finite), finite)  # every code is representable here
    rng = np.random.default_rng(0)
    exponents = rng.integers(fmt.min_exponent - fmt.mantissa_bits - 3, fmt.max_exponent, 50_000)
    x = (rng.uniform(-2, 2, 50_000) * 2.0**exponents).astype(np.float32)
    middles = ((finite.sort().values[1:].double() + finite.sort().values[:-1].double()) / 2).numpy()
    x = np.concatenate([x[np.abs(x) <= fmt.max_value], middles.astype(np.float32)])  # ties, too
    assert np.array_equal(fmt.quantize(torch.from_numpy(x)).numpy(), x.astype(dtype).astype(np.float32))


def test_float32_is_float32() -> None:
    x = sample()
    assert torch.equal(by_name("float32").quantize(x), x)


def test_microscaling_by_hand() -> None:
    """The specification's rule: maximum 5 = 1.25 x 2^2, E2M1's largest exponent is 2, so the scale is 2^0 and 5 lies
    halfway between 4 and 6 (to even: 4); 0.2 rounds to 0 of 0, 0.5. A maximum of 100: scale 2^(6-2)."""
    x = torch.tensor([[5.0, 0.2, -3.0, 0.3]])
    assert Microscaling(by_name("e2m1")).quantize(x).tolist() == [[4.0, 0.0, -3.0, 0.5]]  # type: ignore[arg-type]
    assert Microscaling(by_name("e2m1")).quantize(torch.tensor([[100.0, 9.0]])).tolist() == [[96.0, 8.0]]  # type: ignore[arg-type]
    # mxint8: 5 gives scale 2^2, steps of 4 / 64
    assert by_name("mxint8").quantize(torch.tensor([[5.0, 0.04]])).tolist() == [[5.0, 0.0625]]


def test_blocks_end_where_the_axis_ends() -> None:
    x = torch.ones(1, 20)
    x[0, 16:] = 2.0**-10
    assert BlockFloat(4, block=16).quantize(x)[0, 16:].tolist() == [2.0**-10] * 4  # a block of their own


@given(bits=st.integers(2, 16), seed=st.integers(0, 2**31), rounding=st.sampled_from(ROUNDINGS))
def test_fixed_point_of_its_own_exponent_is_fixed_point(bits: int, seed: int, rounding: str) -> None:
    x = sample(seed)
    own, codes = OwnFixedPoint(bits), FixedPoint(bits)
    held = codes.exponent_for(float(x.abs().max()))
    assert torch.equal(own.quantize(x, rounding, STREAM), codes.quantize(x.double(), held, rounding, STREAM).float())


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("signed", [True, False])
def test_brevitas_quantizers_with_our_exponent_give_our_codes(bits: int, signed: bool) -> None:
    """Brevitas' own fixed-point quantizers, our exponent held in place of their learned scale."""
    from qtrain.layers.brevitas import tensor_quantizer

    fmt = FixedPoint(bits, signed)
    for role in ("weight", "output") if signed else ("output",):
        theirs = tensor_quantizer(fmt, role)
        for seed in range(3):
            x = sample(seed)
            for exponent in (fmt.exponent_for(float(x.abs().max())), -3):  # the second one saturates
                theirs.scaling_impl.hold(exponent)
                assert torch.equal(theirs(x)[0], fmt.quantize(x.clone(), exponent))


@pytest.mark.parametrize(("name", "theirs"), [
    ("int8", "Int8WeightPerTensorFloat"), ("int8-channel", "Int8WeightPerChannelFloat"),
    ("fixed8", "Int8WeightPerTensorFixedPoint"), ("fixed8-channel", "Int8WeightPerTensorFixedPoint"),
])  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_brevitas_weight_quantizers_with_their_own_scales(name: str, theirs: str, seed: int) -> None:
    """Codes, not values: a real scale is float32 there and float64 here. A maximum just below a power of two, where
    Brevitas' rule (divide by 128) and ours (127 codes must hold it) agree, is what both define alike."""
    import brevitas.nn as qnn
    import brevitas.quant as quantizers

    per_channel = name.endswith("channel")
    layer = qnn.QuantLinear(
        24, 6, bias=False, weight_quant=getattr(quantizers, theirs), weight_scaling_per_output_channel=per_channel
    )
    g = torch.Generator().manual_seed(seed)
    weight = (torch.rand(6, 24, generator=g) * 1.6 - 0.8) * 2.0 ** -torch.arange(6.0).view(6, 1)
    weight[:, 0] = 0.9 * 2.0 ** -torch.arange(6.0)
    layer.weight.data = weight
    quant = layer.quant_weight()
    fmt = by_name(name)
    ours = fmt.quantize(layer.weight.data)
    scale = fmt.scale_for(layer.weight.data)
    step = scale[0] if isinstance(scale, tuple) else 2.0 ** scale.double()
    assert torch.equal((ours.double() / step).round(), quant.int().double())


@pytest.mark.parametrize(("wrong", "hint"), [("fixed88", "fixed8"), ("mxfp5", "mxfp"), ("e1m3", "exponent")])
def test_unknown_names_are_met_with_near_ones(wrong: str, hint: str) -> None:
    with pytest.raises(QtrainError, match=hint):
        by_name(wrong)
