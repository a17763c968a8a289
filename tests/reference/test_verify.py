"""The simulator against the integer reference, and the reference's eye for a single wrong bit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from qtrain import engine
from qtrain.experiment import Experiment
from qtrain.experiment.sections import PLANS
from qtrain.formats.fixed import FixedTensor
from qtrain.layers import NumberPlan
from qtrain.layers.probe import convolution_is_exact
from qtrain.layers.quantizer import Quantizer
from qtrain.reference.layout import Sgd
from qtrain.verification import verify, verify_module
from tests.reference.networks import Chain, EveryLayer, batches, seeded


@pytest.mark.parametrize(
    ("how", "bits"),
    [
        *(("torch", bits) for bits in (2, 3, 4, 6, 8, 9, 16)),
        *(("compiled", bits) for bits in (3, 8, 12)),
        ("brevitas", 8),
    ],
)
def test_every_kind_of_layer_at_every_width(how: str, bits: int) -> None:
    if how == "compiled" and engine.compiler() is None:
        pytest.skip("no C++ compiler: PyTorch computes the same bits")
    with engine.using(how):
        report = verify_module(seeded(EveryLayer), (2, 8, 8), NumberPlan.fixed(bits), batches())
    assert report["first_mismatch"] is None
    assert report["mismatches"] == 0
    passes = {layer["layer"]: set(layer["passes"]) for layer in report["layers"]}
    # the first convolution's input needs no error; nothing is known of the input but its codes
    assert passes["first"] == {"forward", "gradient", "update"}
    assert passes["depthwise"] == passes["depthwise_norm"] == passes["last"] == {
        "forward", "error", "gradient", "update"
    }  # fmt: skip
    assert passes["max_pool"] == passes["average"] == {"forward", "error"}
    assert passes["input"] == {"forward"}
    assert passes["loss"] == {"error"}


@pytest.mark.parametrize("bits", [(8, 8), (5, 8), (8, 12), (4, 16)])
@pytest.mark.parametrize("rounding", ["stochastic", "nearest-even"])
def test_the_update_by_shifts(bits: tuple[int, int], rounding: str) -> None:
    """Gradients of one width, masters of another."""
    plan = NumberPlan.fixed(bits[0], scale="dynamic", update_rounding=rounding)
    plan = dataclasses.replace(plan, update="shift", widths=dataclasses.replace(plan.widths, master_bits=bits[1]))
    for rate in (0.05, 0.75, 1e-3):
        report = verify_module(seeded(EveryLayer), (2, 8, 8), plan, batches(), Sgd(rate))
        assert report["first_mismatch"] is None


def test_a_shipped_network_by_the_plan_niti8() -> None:
    report = verify(Experiment(model="lenet5").with_options({"numbers.plan": "niti8"}), steps=2, batch=4)
    assert report["numbers"] == "niti8"
    assert report["mismatches"] == 0
    updates = [layer["passes"]["update"]["elements"] for layer in report["layers"] if "update" in layer["passes"]]
    assert sum(updates) == 2 * 61_706  # two steps: every master, no momentum


def test_widths_that_change_from_layer_to_layer() -> None:
    """12-bit sums feed 8-bit convolutions: their products no longer fit the carrier of 8 bits."""
    rules = {"add*": {"activation_bits": 12}, "wide": {"weight_bits": 3}, "last": {"error_bits": 5, "master_bits": 12}}
    plan = NumberPlan.fixed(8, layers=rules)
    assert verify_module(seeded(EveryLayer), (2, 8, 8), plan, batches())["mismatches"] == 0


@pytest.mark.parametrize("scale", ["dynamic", "delayed", "moving-average", "percentile", "static"])
@pytest.mark.parametrize("rounding", ["stochastic", "nearest-even"])
def test_every_exponent_rule_and_rounding(scale: str, rounding: str) -> None:
    plan = NumberPlan.fixed(5, scale=scale, rounding=rounding, seed=3)
    assert verify_module(seeded(EveryLayer), (2, 8, 8), plan, batches())["mismatches"] == 0


@pytest.mark.parametrize("rounding", ["nearest-away", "floor", "toward-zero"])
def test_the_other_roundings(rounding: str) -> None:
    plan = NumberPlan.fixed(6, rounding=rounding)
    assert verify_module(seeded(Chain), (2, 8, 8), plan, batches())["mismatches"] == 0


@pytest.mark.parametrize("sgd", [Sgd(0.1), Sgd(0.03, 0.5), Sgd(0.1, 0.0, 5e-4), Sgd(1.0, 0.99, 0.3)])
def test_every_kind_of_update(sgd: Sgd) -> None:
    """Decay without momentum makes sums wider than 53 bits, which are rounded to them."""
    assert verify_module(seeded(Chain), (2, 8, 8), NumberPlan.fixed(8), batches(), sgd)["mismatches"] == 0


@pytest.mark.parametrize("train", ["last", "hidden,last", "conv"])
def test_layers_left_frozen(train: str) -> None:
    report = verify_module(seeded(Chain), (2, 8, 8), NumberPlan.fixed(8), batches(), train=train)
    assert report["mismatches"] == 0
    updated = {layer["layer"] for layer in report["layers"] if "update" in layer["passes"]}
    assert updated == set(train.split(","))


def test_instances_gathered_from_a_batch_keep_their_noise() -> None:
    data = [(x, y, torch.tensor([7, 1, 30, 4, 12])) for x, y in batches()]
    plan = NumberPlan.fixed(8)
    assert verify_module(seeded(EveryLayer), (2, 8, 8), plan, data)["mismatches"] == 0
    whole = [(x, y) for x, y, _ in data]
    assert verify_module(seeded(EveryLayer), (2, 8, 8), plan, whole)["mismatches"] == 0


def test_accumulators_that_are_too_narrow_are_counted() -> None:
    """Some sum of 45 products of 8 bits passes 2^15; 18 products of 127 x 127 can't reach 2^31."""
    narrow = NumberPlan.fixed(8, layers={"hidden": {"accumulator_bits": 16}})
    report = verify_module(seeded(Chain), (2, 8, 8), narrow, batches(1))
    rows = {layer["layer"]: layer["passes"].get("forward", {}) for layer in report["layers"]}
    assert rows["hidden"]["accumulator_overflows"] > 0
    assert rows["hidden"]["accumulator_bits"] > 16
    assert rows["conv"]["accumulator_overflows"] == 0


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 7), bits=st.integers(2, 16))
def test_any_data_any_weights(seed: int, n: int, bits: int) -> None:
    data = batches(2, n, 6, seed)
    assert (
        verify_module(seeded(EveryLayer, seed), (2, 6, 6), NumberPlan.fixed(bits, seed=seed), data)["mismatches"] == 0
    )


def test_dead_layers_and_equal_logits() -> None:
    """A convolution of zeros (its step is 2^-100) and logits that are all equal."""
    module = seeded(EveryLayer)
    nn.init.zeros_(module.first.weight)  # type: ignore[arg-type]
    nn.init.zeros_(module.last.weight)  # type: ignore[arg-type]
    nn.init.zeros_(module.last.bias)  # type: ignore[arg-type]
    assert verify_module(module, (2, 8, 8), NumberPlan.fixed(8), batches(2))["mismatches"] == 0


class Deep(nn.Module):
    """Sums that no certificate covers: a convolution of 160 x 9 products at the largest codes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 160, 1)
        self.wide = nn.Conv2d(160, 160, 3, padding=1)
        self.last = nn.Linear(160, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.wide(torch.relu(self.first(x))))
        return self.last(x.mean((2, 3)))


def test_sums_beyond_the_carrier_take_an_exact_path_and_say_so() -> None:
    """1.9 is code 122 of step 2^-6, inputs fill half their range: 1440 x 122 x 128 = 2^24.4 in the middle."""
    module = Deep()
    nn.init.constant_(module.wide.weight, 1.9)
    nn.init.ones_(module.first.weight)
    data = [(torch.ones_like(x), y) for x, y in batches(1, 3, 3)]
    report = verify_module(module, (2, 3, 3), NumberPlan.fixed(8), data)
    assert report["mismatches"] == 0
    row = next(layer for layer in report["layers"] if layer["layer"] == "wide")
    assert "forward: fallback, float64" in row["assurance"]
    assert row["passes"]["forward"]["accumulator_bits"] > 25  # 24 and a sign would have been enough for float32


def test_a_weight_gradient_too_large_for_one_sum_is_split() -> None:
    """Pixels of 1 are code 127 and a mean hands every pixel the same error, up to code 127. By norms 16 instances of
    24 x 24 pixels reach 576 x 127 x sqrt(16) x |16 errors|, beyond 2^24 from |16 errors| = 58 on; one instance stays
    below 576 x 127 x 127 = 2^23.1."""
    module = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)
    )  # fmt: skip
    nn.init.constant_(module[0].weight, 0.5)  # type: ignore[arg-type]
    data = [(torch.ones_like(x), y) for x, y in batches(2, 16, 24)]
    report = verify_module(module, (2, 24, 24), NumberPlan.fixed(8), data)
    assert report["mismatches"] == 0
    assert any("parts" in layer["assurance"] for layer in report["layers"])


@pytest.mark.parametrize(
    ("role", "which"),
    [
        ("grouped.output", "forward"),
        ("grouped.weight", "forward"),
        ("depthwise_norm.output", "forward"),
        ("depthwise_norm.shift", "forward"),
        ("grouped.error", "error"),
        ("first_norm.error", "error"),
        ("loss.error", "error"),
        ("wide.gradient", "gradient"),
        ("wide.bias_gradient", "gradient"),
        ("first_norm.scale_gradient", "gradient"),
    ],
)
def test_one_wrong_bit_in_one_number_is_found(role: str, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One element of one tensor is off by its least significant bit, in the last step: the report points at it."""
    stored = Quantizer.__call__
    data = batches()
    calls = 0

    def faulty(self: Quantizer, *args: object, **kwargs: object) -> FixedTensor:
        nonlocal calls
        out = stored(self, *args, **kwargs)  # type: ignore[arg-type]
        if self.name == role:
            calls += 1
            if calls == len(data):
                assert out.exponent is not None
                first = out.values.flatten()[0]
                step = 2.0**out.exponent
                out.values.view(-1)[0] = first - step if first > 0 else first + step
                if self.watch is not None:  # what the simulator holds from here on is the wrong tensor
                    self.watch(self.name, out)
        return out

    monkeypatch.setattr(Quantizer, "__call__", faulty)
    with engine.using("torch"):  # the compiled normalization rounds inside its kernel
        report = verify_module(seeded(EveryLayer), (2, 8, 8), NumberPlan.fixed(8), data)
    layer = role.rpartition(".")[0]
    assert report["mismatches"] > 0
    assert report["first_mismatch"].startswith(f"step 2, {layer}, {which}")
    assert report["first_mismatch"].endswith(tuple(f": 1 of {n}" for n in range(1, 10_000)))


def test_one_wrong_bit_in_an_update_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from qtrain.layers.optimizer import FixedSGD

    step = FixedSGD.step

    def faulty(self: FixedSGD, *args: object, **kwargs: object) -> None:
        step(self, *args, **kwargs)  # type: ignore[arg-type]
        self.parameters["wide.weight"].data.view(-1)[3] += 2.0 ** self.exponents["wide.weight"]

    monkeypatch.setattr(FixedSGD, "step", faulty)
    report = verify_module(seeded(EveryLayer), (2, 8, 8), NumberPlan.fixed(8), batches(1))
    assert report["first_mismatch"].startswith("step 0, wide, update, wide.weight: 1 of")
    assert report["mismatches"] == 1


def test_this_machine_convolves_exactly() -> None:
    assert convolution_is_exact()


def test_a_machine_that_does_not_gets_float64_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtrain.layers.exact.convolution_is_exact", lambda device: False)
    report = verify_module(seeded(EveryLayer), (2, 8, 8), NumberPlan.fixed(8), batches(2))
    assert report["mismatches"] == 0
    said = {layer["layer"]: layer["assurance"] for layer in report["layers"]}
    for name in ("first", "depthwise", "grouped", "wide"):
        assert said[name].count("fallback, float64") == (2 if name == "first" else 3)  # no error pass below the first


@pytest.mark.parametrize("bits", [8, 4])
def test_a_shipped_network_on_real_digits(bits: int) -> None:
    report = verify(Experiment(model="lenet5").bits(bits), steps=3, batch=4)
    assert report["mismatches"] == 0
    # three steps, each at least: every weight quantized, its gradient, its master and its momentum
    network_parameters = 61_706  # 156 + 2416 + 48120 + 10164 + 850
    assert report["elements"] > 3 * 4 * 0.9 * network_parameters


@pytest.mark.parametrize("fmt", ["float32", "bfp", "e5m2"])
def test_numbers_without_an_integer_definition_are_said_so(fmt: str) -> None:
    experiment = Experiment(model="lenet5").with_options({"numbers.format": fmt})
    report = verify(experiment.bits(32) if fmt == "float32" else experiment)
    assert not report["verifiable"]
    assert ("float sums" if fmt == "float32" else fmt) in report["reason"]
    assert report["elements"] == 0
    assert all(layer["assurance"].startswith("not exact: ") for layer in report["layers"])


@pytest.mark.parametrize("plan", PLANS)
def test_every_plan_is_proved_or_says_why_not(plan: str) -> None:
    experiment = Experiment(model="digits-cnn").with_options({"numbers.plan": plan})
    assert Experiment.from_toml(experiment.to_toml()) == experiment
    report = verify(experiment, steps=2, batch=4)
    assert report["mismatches"] == 0
    assert bool(report["elements"]) == report["verifiable"] == (plan in ("fixed", "niti8"))
    assert report["verifiable"] or report["reason"]
