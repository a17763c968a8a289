"""Every normalization against the integer reference, and its integers against real arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwmodel.operations import NORM_KINDS
from qtrain import engine
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.norms import UNITS
from qtrain.layers.norms.modules import KINDS, FrozenNorm, RangeNorm
from qtrain.verification import verify_module

MAKE: dict[str, Callable[[int], nn.Module]] = {
    "batchnorm": nn.BatchNorm2d,
    "frozennorm": FrozenNorm,
    "rangenorm": RangeNorm,
    "groupnorm": lambda channels: nn.GroupNorm(2, channels),
}


class Normalized(nn.Module):
    """Normalizations behind a convolution, an addition and a linear layer, with and without an activation."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        make = MAKE[kind]
        self.first = nn.Conv2d(2, 6, 3, bias=False)
        self.norm = make(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.sum_norm = make(6)
        self.hidden = nn.Linear(6, 8)
        self.vector_norm = make(8) if kind != "batchnorm" else nn.BatchNorm1d(8)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.norm(self.first(x)))
        x = self.sum_norm(self.second(x) + x)
        return self.last(torch.relu(self.vector_norm(self.hidden(x.mean((2, 3))))))


def normalized(kind: str, seed: int = 0) -> Normalized:
    """With scales of both signs and statistics that are not those of a fresh network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Normalized(kind)
        for module in model.modules():
            if type(module) in KINDS:
                nn.init.normal_(module.weight)  # type: ignore[arg-type]
                for name, buffer in module.named_buffers():
                    if name != "num_batches_tracked":
                        buffer.uniform_(0.2, 2.0)
    return model


def batches(n_steps: int = 3, n: int = 5, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(n, 2, 8, 8, generator=g), torch.randint(0, 4, (n,), generator=g)) for _ in range(n_steps)]


def test_every_kind_has_a_module_and_a_unit() -> None:
    assert set(NORM_KINDS) == set(UNITS) == set(KINDS.values()) == set(MAKE)


@pytest.mark.parametrize(("how", "bits"), [("torch", 3), ("compiled", 4), ("compiled", 8), ("torch", 12)])
@pytest.mark.parametrize("kind", NORM_KINDS)
def test_equals_the_reference(kind: str, how: str, bits: int) -> None:
    if how == "compiled" and engine.compiler() is None:
        pytest.skip("no C++ compiler: PyTorch computes the same bits")
    with engine.using(how):
        report = verify_module(normalized(kind), (2, 8, 8), NumberPlan.fixed(bits), batches())
    assert report["first_mismatch"] is None
    passes = {layer["layer"]: set(layer["passes"]) for layer in report["layers"]}
    for name in ("norm", "sum_norm", "vector_norm"):
        assert passes[name] == {"forward", "error", "gradient", "update"}


@settings(max_examples=12, deadline=None)
@given(
    kind=st.sampled_from(NORM_KINDS), bits=st.integers(2, 16), n=st.integers(1, 6), seed=st.integers(0, 10**6),
    roles=st.fixed_dictionaries({
        "gamma_bits": st.integers(2, 24), "beta_bits": st.integers(2, 24), "mean_bits": st.integers(8, 24),
        "variance_bits": st.integers(8, 24),
    }),
)  # fmt: skip
def test_any_data_and_widths_of_parameters_and_statistics(
    kind: str, bits: int, n: int, seed: int, roles: dict[str, int]
) -> None:
    plan = NumberPlan.fixed(bits, seed=seed, layers={"*norm": roles})
    assert verify_module(normalized(kind, seed), (2, 8, 8), plan, batches(2, n, seed))["first_mismatch"] is None


def gradients(kind: str, plan: NumberPlan) -> dict[str, Tensor]:
    """Gradients of the mean loss, of a convolution, one normalization and a linear layer, by parameter; and of the
    input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        norm = MAKE[kind](6)
        nn.init.normal_(norm.weight)  # type: ignore[arg-type]
        model = nn.Sequential(nn.Conv2d(2, 6, 3), norm, nn.Flatten(), nn.Linear(6 * 36, 4))
    ((x, labels),) = batches(1, 8)
    net = quantize(model, (2, 8, 8), plan)
    logits, tape = net.run(x)
    _, error, scale = cross_entropy(logits, labels)
    sent = net.run_back(tape, net.logit_error(error, tape), to_input=True)
    assert sent is not None
    found = {name: p.grad * scale for name, p in model.named_parameters() if p.grad is not None}
    return found | {"input": sent * scale}


@pytest.mark.parametrize("kind", NORM_KINDS)
def test_at_16_bits_the_integers_are_the_formula(kind: str) -> None:
    """Codes of 16 bits are off by 2^-16 of the largest, constants of 14 bits and more by 2^-15: with sums over
    hundreds of such terms gradients agree with float32's to 2^-10 by their norms."""
    fixed = gradients(kind, NumberPlan.fixed(16, scale="dynamic", rounding="nearest-even"))
    plain = gradients(kind, NumberPlan.float32())
    floor = 2.0**-10 * float(plain["0.weight"].norm())  # a bias before the batch's own mean has no gradient
    for name, gradient in plain.items():
        assert (fixed[name] - gradient).norm() < 2.0**-10 * gradient.norm() + floor * (name == "0.bias"), name


@pytest.mark.parametrize("kind", ["rangenorm", "groupnorm"])
def test_going_back_with_some_instances_is_going_back_with_no_error_for_the_rest(kind: str) -> None:
    """Narrowed to rows 4, 1 and 2 the error pass sends what it would send were the others' errors zero."""
    ((x, labels),) = batches(1, 6)
    keep = torch.tensor([4, 1, 2])
    plan = NumberPlan.fixed(8, rounding="nearest-even", scale="dynamic")
    found = []
    for narrowed in (True, False):
        net = quantize(normalized(kind), (2, 8, 8), plan)
        logits, tape = net.run(x)
        _, error, _ = cross_entropy(logits, labels)
        if narrowed:
            error = error[keep]
            tape.narrow(keep)
        else:
            error = error * torch.zeros(6, 1).index_fill_(0, keep, 1.0)
        sent = net.run_back(tape, net.logit_error(error, tape), to_input=True)
        assert sent is not None
        found.append((sent if narrowed else sent[keep], [p.grad for p in net.model.parameters()]))
    if kind == "groupnorm":  # no instance hands anything to another
        assert torch.equal(found[0][0], found[1][0])
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert ours is not None
        assert ours.shape == theirs.shape
    last = [(ours, theirs) for ours, theirs in zip(found[0][1], found[1][1], strict=True)][-4:]
    assert all(torch.equal(ours, theirs) for ours, theirs in last)  # vector_norm and last: nothing is dropped before
