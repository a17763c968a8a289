"""Every role's rounding and exponent rule, global and by layer, against the integer reference."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtrain.experiment import Experiment
from qtrain.experiment.sections import ROUNDINGS, SCALES
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.plan import Rules
from qtrain.training.setup import number_plan
from qtrain.verification import verify_module
from tests.reference.networks import Chain, EveryLayer, batches, seeded

CHOICES = {
    f.name: st.sampled_from(ROUNDINGS if f.name.endswith("rounding") else SCALES) for f in dataclasses.fields(Rules)
}
some_rules = st.fixed_dictionaries({}, optional=CHOICES)


@settings(max_examples=12, deadline=None)
@given(everywhere=some_rules, first=some_rules, last=some_rules, bits=st.sampled_from([4, 8]), seed=st.integers(0, 99))
def test_any_rules_everywhere_and_in_the_first_and_last_layers(
    everywhere: dict[str, str], first: dict[str, str], last: dict[str, str], bits: int, seed: int
) -> None:
    plan = NumberPlan.fixed(
        bits, seed=seed, layers={"*": {}, "first*": first, "last": {**last, "weight_bits": 5}}, **everywhere
    )
    assert verify_module(seeded(EveryLayer, seed), (2, 8, 8), plan, batches(3, seed=seed))["first_mismatch"] is None


def test_roles_fall_back_on_the_plan_and_a_later_rule_wins() -> None:
    layers = {
        "layer1.*": {"error_rounding": "floor", "rounding": "toward-zero"},
        "*.conv2": {"error_rounding": "nearest-away", "activation_scale": "static"},
    }
    plan = NumberPlan.fixed(8, layers=layers, scale="dynamic")
    outside, both = plan.rules_for("fc"), plan.rules_for("layer1.0.conv2")
    assert [outside.rounding_of(r) for r in ("weight", "activation", "error", "gradient", "update")] == [
        "nearest-even", "nearest-even", "stochastic", "stochastic", "stochastic",
    ]  # fmt: skip
    assert [both.rounding_of(r) for r in ("error", "gradient", "update")] == [
        "nearest-away", "toward-zero", "toward-zero"
    ]  # fmt: skip
    assert (outside.scale_of("activation"), both.scale_of("activation"), both.scale_of("error")) == (
        "dynamic", "static", "dynamic",
    )  # fmt: skip
    assert plan.for_layer("layer1.0.conv2").stochastic == ()  # priced without random numbers
    assert plan.for_layer("fc").stochastic == ("error", "gradient", "update")


def test_an_experiments_tables_reach_every_point() -> None:
    text = (
        '[numbers]\nrounding = "floor"\nweight_scale = "delayed"\n[layers."las*"]\nupdate_rounding = "nearest-away"\n'
    )
    plan = number_plan(Experiment.from_toml(text))
    net = quantize(seeded(Chain), (2, 8, 8), plan)
    points = net.quantizers()
    assert {points[f"conv.{role}"].rounding for role in ("error", "gradient", "bias_gradient")} == {"floor"}
    assert points["conv.weight"].scale == "delayed"
    assert plan.rules_for("last").rounding_of("update") == "nearest-away"
    assert plan.rules_for("hidden").rounding_of("update") == "floor"


def test_a_weight_with_a_held_exponent_is_not_taught_by_inference() -> None:
    """What a delayed rule has learned is the last training step's, however often the network is evaluated."""
    net = quantize(seeded(Chain), (2, 8, 8), NumberPlan.fixed(8, weight_scale="delayed"))
    (x, _), *_ = batches(1)
    net.run(x)
    held = net.quantizers()["conv.weight"].amax
    net.model.conv.weight.data *= 4  # type: ignore[operator,union-attr]
    net.run(x, training=False)
    assert net.quantizers()["conv.weight"].amax == held
    net.run(x)
    assert net.quantizers()["conv.weight"].amax == pytest.approx(4 * held, abs=0)
