"""Compiled quantization points against PyTorch's operations: every bit, whatever the layout, threads and rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qtrain import engine
from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedPoint
from qtrain.layers.quantizer import Clock, Quantizer

pytestmark = pytest.mark.skipif(engine.compiler() is None, reason="no C++ compiler")
CLOCK = Clock(seed=3, step=5)


def through(name, quantizer_arguments, calls):
    """What an engine stores for a sequence of calls of one point, and the state it is left in."""
    point = Quantizer(*quantizer_arguments, stream_id=77, name="point")
    with engine.using(name):
        stored = [point(x.clone(), CLOCK, rows, **kwargs) for x, rows, kwargs in calls]
    return stored, point.state()


def check_same(quantizer_arguments, calls):
    expected, expected_state = through("torch", quantizer_arguments, calls)
    got, got_state = through("compiled", quantizer_arguments, calls)
    for e, g in zip(expected, got, strict=True):
        assert g.exponent == e.exponent
        assert g.values.dtype == e.values.dtype
        assert torch.equal(g.values, e.values)
    assert got_state == expected_state


@given(
    st.integers(2, 16), st.booleans(), st.sampled_from(["nearest-even", "stochastic", "floor", "nearest-away"]),
    st.sampled_from(["dynamic", "delayed", "moving-average", "percentile", "static"]),
    st.sampled_from([(5,), (7, 3), (3, 5, 4, 6), (2, 1, 9, 9), (4, 16, 1, 1), (40, 30, 7, 5)]),
    st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([None, 1.5]), st.integers(0, 2**31),
)  # fmt: skip
def test_same_bits(bits, signed, rounding, scale, shape, last, gathered, double, summed, cap, seed):
    generator = torch.Generator().manual_seed(seed)
    calls = []
    for i in range(3):
        x = torch.randn(shape, generator=generator) * 2.0 ** (3 * i)
        x = x.double() if double or bits > 8 else x
        if last and len(shape) == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        rows = torch.randperm(1000, generator=generator)[: shape[0]] if gathered else None
        plus = x.flip(0).contiguous() if summed else None  # laid out as x, or not
        calls.append((x, rows, {"cap": cap, "learn": i < 2, "plus": plus}))
    check_same((FixedPoint(bits, signed), rounding, scale), calls)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("shape", [(1 << 17,), (64, 16, 16, 16)])
def test_threads_share_a_tensor(n_threads, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        check_same((FixedPoint(8), "stochastic", "dynamic"), [(x, None, {}), (x, None, {"plus": x.flip(0)})])
    finally:
        torch.set_num_threads(before)


def test_strided_tensors_are_taken_too():
    x = torch.randn(6, 8, 5, 5)[:, ::2]
    check_same((FixedPoint(8), "stochastic", "dynamic"), [(x, None, {}), (x.transpose(2, 3), None, {})])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("nan")])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("scale", ["dynamic", "delayed"])
def test_numbers_that_are_not_finite_are_refused(bad, signed, scale):
    point = Quantizer(FixedPoint(8, signed), "nearest-even", scale, 1, "conv1.output")
    with engine.using("compiled"):
        point(torch.ones(100), CLOCK)
        x = torch.ones(100)
        x[63] = bad
        with pytest.raises(QtrainError, match=r"conv1\.output"):
            point(x, CLOCK)


def test_only_an_owned_tensor_is_overwritten():
    point = Quantizer(FixedPoint(8), "nearest-even", "dynamic", 1, "p")
    x = torch.tensor([0.3, -1.7])
    with engine.using("compiled"):
        assert point(x, CLOCK).values.data_ptr() != x.data_ptr()
        assert x.tolist() == [pytest.approx(0.3), pytest.approx(-1.7)]
        assert point(x, CLOCK, owned=True).values.data_ptr() == x.data_ptr()


def test_watchers_see_what_is_stored():
    seen = []
    point = Quantizer(FixedPoint(8), "nearest-even", "dynamic", 1, "p")
    point.watch = lambda name, tensor: seen.append((name, tensor))
    with engine.using("compiled"):
        stored = point(torch.tensor([1.0, -2.0]), CLOCK)
    assert seen == [("p", stored)]
