"""Which settings of [filter] have an effect: those that are said to have none change nothing, the others something."""

import pytest

from qtrain import filters
from qtrain.experiment import Experiment

OTHER = {
    "rate": 0.6, "alpha_up": 1.3, "alpha_down": 0.7, "window": 2, "threshold": 0.7, "entropy_threshold": 0.6,
    "adaptive": False, "weighted": False, "uncertainty": False, "audit": 0.4, "lr": 0.2, "momentum": 0.1, "keep": 0.8,
}  # fmt: skip
LEARNS = {"lr": 0.3, "rate": 0.2}
CHOSEN = {
    **{kind: {} for kind in filters.names() if kind != "instance"},
    "instance": LEARNS,
    "instance, still": LEARNS | {"adaptive": False},
    "instance, true-high": LEARNS | {"steer": "true-high", "threshold": 1.0},
    "instance, kept, still": LEARNS | {"steer": "kept", "threshold": 1.0, "adaptive": False},
}


@pytest.mark.parametrize("chosen", CHOSEN)
def test_a_setting_without_effect_changes_nothing_and_one_with_effect_something(lab, chosen):
    kind, base = chosen.partition(",")[0], CHOSEN[chosen]
    options = {"filter.kind": kind} | {f"filter.{name}": value for name, value in base.items()}
    settings = Experiment().with_options(options).filter
    usual = lab.run(lab.make(kind, **base), range(30))
    for name, value in OTHER.items():
        if base.get(name) != value:
            same = lab.run(lab.make(kind, **base | {name: value}), range(30)) == usual
            assert same == bool(filters.purpose(settings, name)), name


@pytest.mark.parametrize("kind", filters.names())
def test_what_the_trainer_reads(kind):
    """A network's settings where there is one; the divisor where a mini-batch is trained on in part; milestones by
    schedule step alone."""
    settings = Experiment().with_options({"filter.kind": kind}).filter
    for name in ("network", "lr", "momentum", "schedule"):
        assert filters.purpose(settings, name) == ("" if kind == "instance" else "filter instance")
    part = ("instance", "ohem", "random", "selective-backprop")
    wanted = "filter instance or ohem or random or selective-backprop"
    assert filters.purpose(settings, "mean_over") == ("" if kind in part else wanted)
    stepped = Experiment().with_options({"filter.schedule": "step", "filter.milestones": (3,)}).filter
    assert filters.purpose(stepped, "milestones") == ""
    assert filters.purpose(Experiment().filter, "milestones") == "filter.schedule step"
