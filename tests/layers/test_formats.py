"""Every format a role may have, in a network that holds every kind of layer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.formats import names
from qtrain.formats.fixed import FixedTensor
from qtrain.formats.minifloat import E4M3, E5M2, FLOAT16, Minifloat
from qtrain.formats.noise import Stream
from qtrain.formats.registry import by_name
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.emulated import EmulatedQuantizer
from qtrain.layers.exactness import inexact, not_verifiable
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import SCALES, Clock
from qtrain.training.setup import number_plan

NAMES = [(family, min(bits, key=lambda b: abs(b - 6))) for family, bits in names.FAMILIES.items()]
NAMES += [(name, 8) for name in (*names.OWN_BITS, "e4m3", "e5m2", "e2m1", "e3m4")]
every = pytest.mark.parametrize(("name", "bits"), NAMES)


class Small(nn.Module):
    """Normalization, ReLU6, a residual, both pools, a depthwise and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.depthwise(x) + x)
        return self.last(nn.functional.relu6(self.pool(x)).mean((2, 3)))


def plan_of(name: str, bits: int = 8, **options: object) -> NumberPlan:
    width = {} if names.own_bits(name) else {"numbers.bits": bits}
    return number_plan(Experiment().with_options({"numbers.format": name, **width, **options}))


def trained(plan: NumberPlan, n_steps: int = 3, last: bool = False) -> tuple[dict[str, Tensor], FixedSGD, list[float]]:
    """Every stored tensor of the last step by its point's name, the optimizer, the losses."""
    torch.manual_seed(0)
    net = quantize(Small(), (2, 6, 6), plan)
    net.memory_format = torch.channels_last if last else None
    optimizer = FixedSGD(net, 0.05, 0.9, 1e-4)
    stored: dict[str, Tensor] = {}

    def keep(name: str, tensor: FixedTensor) -> None:
        stored[name] = tensor.values.clone()

    for point in net.quantizers().values():
        point.watch = keep
    g = torch.Generator().manual_seed(1)
    x, labels, losses = torch.randn(8, 2, 6, 6, generator=g), torch.arange(8) % 4, []
    for step in range(n_steps):
        net.step = step
        logits, tape = net.run(x)
        own, error, scale = cross_entropy(logits, labels)
        net.run_back(tape, net.logit_error(error, tape))
        optimizer.step(Clock(0, step), scale)
        losses.append(float(own.mean()))
    return stored, optimizer, losses


@every
def test_every_stored_tensor_is_of_its_format(name: str, bits: int) -> None:
    """At most 2^bits values a tensor; a tensor of blocks is left alone by its format."""
    plan = plan_of(name, bits)
    stored, _, losses = trained(plan)
    assert all(torch.isfinite(torch.tensor(losses)))
    if name == "float32":
        assert not any(key.endswith("error") for key in stored)  # nothing is rounded there
        return
    assert {"depthwise.weight", "depthwise.gradient", "last.error", "norm.output", "loss.error"} <= stored.keys()
    for key, values in stored.items():
        if key in ("norm.scale", "norm.shift"):
            continue  # of the master's width, where the normalization is in fixed point
        logits = key == "last.output"  # always fixed point, at the norm width
        width = 8 if logits else names.width(name, 8 if key == "conv.output" else bits)
        if name.startswith(("bfp", "mx")) and not logits:
            assert torch.equal(by_name(names.at(name, width)).quantize(values), values)
        else:
            assert len(values.unique()) <= 2**width
        assert bool((values != 0).any())


@every
def test_memory_format_changes_no_stored_bit_of_one_forward_point(name: str, bits: int) -> None:
    fmt = by_name(names.at(name, bits))
    for rounding in ("nearest-even", "stochastic"):
        point = EmulatedQuantizer(fmt, rounding, "dynamic", 7, "x", "relu") if name != "fixed" else None
        if point is None:
            continue
        x = torch.randn(4, 20, 3, 3, generator=torch.Generator().manual_seed(0))
        plain = point(x, Clock(0, 1)).values
        assert torch.equal(point(x.contiguous(memory_format=torch.channels_last), Clock(0, 1)).values, plain)


@pytest.mark.parametrize("name", ["e4m3", "bfp8", "mxfp4", "int8-affine", "bfloat16"])
def test_gathered_instances_round_as_in_the_whole_batch(name: str) -> None:
    """Noise is keyed by the place in the ungathered tensor; "static" holds the grid of the first step."""
    point = EmulatedQuantizer(by_name(name), "stochastic", "static", 3, "x", "none")
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    whole, rows = point(x, Clock(0, 0)).values, torch.tensor([4, 1])
    assert torch.equal(point(x[rows], Clock(0, 0), rows).values, whole[rows])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["e4m3", "int8", "int8-affine"])
def test_a_points_state_is_all_there_is(name: str, scale: str) -> None:
    """After one tensor, a fresh point given its state rounds the next as the old one does."""
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(5, 3, generator=g), 4 * torch.randn(5, 3, generator=g)
    old, new = (EmulatedQuantizer(by_name(name), "nearest-even", scale, 3, "x", "none") for _ in range(2))
    old(first, Clock(0, 0))
    new.load_state(old.state())
    assert torch.equal(new(second, Clock(0, 1)).values, old(second, Clock(0, 1)).values)


def test_moving_average_of_each_instances_range_by_hand() -> None:
    """Instances span 0..1 and 0..3: mean 0..2, a step 2 / 255; then 0..12 and 0..12: 0.9 x 2 + 0.1 x 12 = 3."""
    point = EmulatedQuantizer(by_name("int8-affine"), "nearest-even", "moving-average", 3, "x", "none")
    point(torch.tensor([[0.0, 1.0], [0.0, 3.0]]), Clock(0, 0))
    assert point.range == (0.0, 2.0)
    out = point(torch.tensor([[0.0, 12.0], [0.0, 12.0]]), Clock(0, 1)).values
    assert point.range == pytest.approx((0.0, 3.0))
    assert float(out.max()) == pytest.approx(3.0)  # what lies beyond saturates


@given(
    fmt=st.sampled_from([E4M3, E5M2, FLOAT16, Minifloat(2, 0, "finite"), Minifloat(3, 1, "finite")]),
    scale=st.integers(-90, 60), seed=st.integers(0, 2**31), rounding=st.sampled_from(["nearest-even", "stochastic"]),
)  # fmt: skip
def test_minifloats_round_float32_and_float64_alike(fmt: Minifloat, scale: int, seed: int, rounding: str) -> None:
    """Two ways to find an element's binade: float32's own exponent field, and frexp in float64."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(50, generator=g) * 2.0 ** (torch.randint(-12, 8, (50,), generator=g) + scale).double()
    x = x.float()
    stream = Stream(0, seed, 1)
    assert torch.equal(fmt.quantize(x, rounding, stream, scale), fmt.quantize(x.double(), rounding, stream, scale))


@given(amax=st.floats(1e-20, 1e20), fmt=st.sampled_from([E4M3, E5M2, Minifloat(2, 0, "finite")]))
def test_a_minifloats_scale_is_the_smallest_that_holds(amax: float, fmt: Minifloat) -> None:
    e = fmt.exponent_for(amax)
    assert fmt.max_value * 2.0**e >= amax > fmt.max_value * 2.0 ** (e - 1)


def test_masters_and_momentum_have_a_format_of_their_own() -> None:
    options = {"numbers.master_format": "bfloat16", "numbers.momentum_format": "e5m2"}
    _, optimizer, _ = trained(plan_of("fixed", 8, **options))
    for name, parameter in optimizer.parameters.items():
        assert torch.equal(parameter.detach().bfloat16().float(), parameter.detach())
        assert len(optimizer.velocity[name].unique()) <= 2**8


def test_only_layers_named_by_a_glob_change() -> None:
    experiment = Experiment().with_layer("depthwise", error_format="e5m2", weight_format="bfp")
    plan = number_plan(experiment)
    net = quantize(Small(), (2, 6, 6), plan)
    points = net.quantizers()
    assert isinstance(points["depthwise.weight"], EmulatedQuantizer)
    assert isinstance(points["depthwise.error"], EmulatedQuantizer)
    assert not isinstance(points["conv.weight"], EmulatedQuantizer)
    assert not isinstance(points["last.error"], EmulatedQuantizer)
    found = inexact(plan, net.network.layers)
    assert found == {"depthwise": "bfp weight; e5m2 error", "norm": "computed in float32"}
    assert not_verifiable(plan, net.network.layers).startswith("bfp weight; e5m2 error")


def test_experiments_name_the_format_of_every_role() -> None:
    experiment = Experiment().with_options({"numbers.format": "e5m2", "numbers.gradient_format": "bfp"})
    numbers = experiment.numbers
    assert (numbers.weight_format, numbers.error_format, numbers.gradient_format) == ("e5m2", "e5m2", "bfp")
    assert Experiment.from_toml(experiment.to_toml()) == experiment
    assert Experiment.from_toml('[numbers]\nformat = "mxfp4"').numbers.weight_bits == 4
    assert Experiment.from_toml('[layers.conv1]\nformat = "mxfp4"').numbers_for("conv1").error_bits == 4
    assert experiment.bits(8).numbers.weight_format == "e5m2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"numbers.format": "e4m4m"}, "did you mean 'e4m3'"),
        ({"numbers.format": "e4m3", "numbers.bits": 4}, "has 8 bits"),
        ({"numbers.format": "minifloat", "numbers.bits": 2}, "minifloat has no 2 bits"),
        ({"numbers.format": "mx", "numbers.bits": 5}, "valid: 4, 6, 8"),
    ],
)
def test_formats_that_do_not_exist(options: dict[str, object], words: str) -> None:
    with pytest.raises(QtrainError, match=words):
        Experiment().with_options(options)


def test_names_and_registry_agree_on_widths() -> None:
    for name, bits in names.OWN_BITS.items():
        assert by_name(name).bits == bits
    for family in names.FAMILIES.values():
        for bits, name in family.items():
            if not (name.startswith("fixed") and bits > 16):
                assert by_name(name).bits == bits
