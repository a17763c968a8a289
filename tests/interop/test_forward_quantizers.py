"""Brevitas' forward quantizers and qtrain's own twins give the same codes."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qtrain import engine, models
from qtrain.formats.fixed import FixedPoint
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.forward import ForwardQuantizer
from qtrain.layers.loss import cross_entropy, mean_squared_error
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import NEAREST, Clock, Quantizer

CLOCK = Clock(0, 0)
FORMATS = st.builds(FixedPoint, st.integers(2, 16), st.booleans())


def _by_brevitas(fmt: FixedPoint, x: torch.Tensor, exponent: int, role: str = "output") -> torch.Tensor:
    return ForwardQuantizer(fmt, NEAREST, "dynamic", 1, "point", role).brevitas(exponent)(x)[0]


@settings(max_examples=60, deadline=None)
@given(FORMATS, st.integers(-40, 20), st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=50), st.booleans())
def test_any_number_on_any_grid_gets_the_same_code(
    fmt: FixedPoint, exponent: int, numbers: list[float], wide: bool
) -> None:
    """`numbers` are in units of 1/4 of the step: halves between codes and both sides of the limits are met."""
    x = torch.tensor(numbers, dtype=torch.float64 if wide else torch.float32).mul_(0.25)
    x = torch.cat([x, x + fmt.max_code]) * math.ldexp(1.0, exponent)
    assert torch.equal(_by_brevitas(fmt, x, exponent), fmt.quantize(x, exponent))


@pytest.mark.parametrize(("bits", "signed"), [(b, s) for b in range(2, 9) for s in (False, True)])
def test_every_code_is_itself_and_every_half_goes_to_even(bits: int, signed: bool) -> None:
    fmt = FixedPoint(bits, signed)
    codes = torch.arange(fmt.min_code, fmt.max_code + 1, dtype=torch.float32)
    assert torch.equal(_by_brevitas(fmt, codes * 2.0**-5, -5), codes * 2.0**-5)
    lower = codes[:-1]
    even = torch.where(lower % 2 == 0, lower, lower + 1)
    assert torch.equal(_by_brevitas(fmt, lower + 0.5, 0), even)
    outside = torch.tensor([-1e6, 1e6])
    assert _by_brevitas(fmt, outside, 0).tolist() == [fmt.min_code, fmt.max_code]


@pytest.mark.parametrize("scale", ["dynamic", "delayed", "moving-average", "percentile", "static"])
@pytest.mark.parametrize(("role", "signed", "cap"), [("weight", True, None), ("output", True, None),
                                                     ("output", False, None), ("output", False, 6.0)])  # fmt: skip
def test_points_hold_the_same_exponent_and_give_the_same_values(
    scale: str, role: str, signed: bool, cap: float | None
) -> None:
    """A growing tensor: delayed and static exponents saturate, the others follow."""
    fmt = FixedPoint(8, signed)
    twin, point = Quantizer(fmt, NEAREST, scale, 1, "twin"), ForwardQuantizer(fmt, NEAREST, scale, 1, "brevitas", role)
    generator = torch.Generator().manual_seed(3)
    for size in (1.0, 5.0, 40.0):
        x = torch.randn(4, 3, 5, 5, generator=generator) * size
        with engine.using("torch"):
            ours = twin(x, CLOCK, cap=cap)
        with engine.using("brevitas"):
            theirs = point(x, CLOCK, cap=cap)
        assert torch.equal(ours.values, theirs.values)
        assert ours.exponent == theirs.exponent
        assert cap is None or theirs.values.max() <= cap
    assert twin.state() == point.state()


def _losses_and_weights(name: str, by: str) -> tuple[list[float], dict[str, torch.Tensor], dict]:
    """Two training steps on four made instances; one on one of a large network."""
    found = models.info(name)
    large = name in ("vgg16", "resnet44", "resnet56", "resnet74", "resnet110")
    n, n_steps = (1, 1) if large else (4, 2)
    net = quantize(models.build(name), found.input_shape, NumberPlan.fixed(8), name=name)
    sgd = FixedSGD(net, 0.01, 0.9, 1e-4)
    generator = torch.Generator().manual_seed(1)
    losses = []
    with engine.using(by):
        for net.step in range(n_steps):
            x = torch.rand(n, *found.input_shape, generator=generator)
            logits, tape = net.run(x)
            if found.task == "reconstruct":
                each, error, scale = mean_squared_error(logits, x.to(logits.values.dtype))
            else:
                each, error, scale = cross_entropy(logits, torch.arange(n) % found.n_classes)
            net.run_back(tape, net.logit_error(error, tape))
            sgd.step(tape.clock, scale)
            losses += each.tolist()
    points = [q for q in net.quantizers().values() if isinstance(q, ForwardQuantizer)]
    assert all((point._brevitas is not None) == (by == "brevitas") for point in points)
    return losses, net.state_dict(), net.numbers_state()


@pytest.mark.parametrize("name", models.names())
def test_every_engine_computes_what_brevitas_computes(name: str) -> None:
    losses, weights, numbers = _losses_and_weights(name, "brevitas")
    engines = ["torch"] if engine.compiler() is None else ["torch", "compiled"]
    for by in engines:
        twin_losses, twin_weights, twin_numbers = _losses_and_weights(name, by)
        assert losses == twin_losses
        assert numbers == twin_numbers
        assert weights.keys() == twin_weights.keys()
        for key in weights:
            assert torch.equal(weights[key], twin_weights[key]), (by, key)


def test_weights_and_outputs_are_the_points_brevitas_owns() -> None:
    net = quantize(models.build("digits-cnn"), (1, 8, 8), NumberPlan.fixed(6))
    for name, point in net.quantizers().items():
        forward = name.rsplit(".", 1)[1] in ("weight", "output")
        assert isinstance(point, ForwardQuantizer) == forward, name


def test_no_other_engine_imports_brevitas() -> None:
    code = (
        "import sys, torch; from qtrain import engine, models; from qtrain.layers import NumberPlan, quantize\n"
        "net = quantize(models.build('digits-cnn'), (1, 8, 8), NumberPlan.fixed(8))\n"
        "engine.use('torch'); net.run(torch.rand(2, 1, 8, 8)); assert 'brevitas' not in sys.modules\n"
        "engine.use('brevitas'); net.run(torch.rand(2, 1, 8, 8)); assert 'brevitas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
