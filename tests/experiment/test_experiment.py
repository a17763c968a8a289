"""An experiment is valid or refused in one line, and its identity follows what can change its result."""

import dataclasses
import math

import pytest

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment, Numbers, code_version, identity, options
from qtrain.experiment.options import Interval

DEFAULT = Experiment()
OUTSIDE_ID = {  # what cannot change the numbers a run computes
    "run.devices",
    "run.kernels",
    "run.threads",
    "run.checkpoint_every",
    "run.baseline",
    "run.engine",
    "run.tensorboard",
    "run.out",
}


def another_value(option):
    """A valid value that is not the default."""
    if option.choices:
        return next(c for c in option.choices if c != option.default)
    if option.type is bool:
        return not option.default
    if option.key == "input_shape":
        return (3, 5, 7)
    if option.is_list:
        return (*option.default, option.type(7))
    return {int: 12, float: 0.25 if option.key != "filter.alpha_up" else 1.5, str: "other"}[option.type]


def changed(option):
    extra = {option.key.replace("schedule", "milestones"): (5,)} if option.key.endswith(".schedule") else {}
    if option.key == "numbers.update":  # shifts know neither momentum nor decay
        extra = {"optimizer.momentum": 0.0, "optimizer.weight_decay": 0.0, "filter.momentum": 0.0}
    return DEFAULT.with_options({option.key: another_value(option)} | extra)


@pytest.mark.parametrize("option", options(), ids=lambda o: o.key)
def test_every_option_can_be_set_and_survives_toml(option):
    experiment = changed(option)
    assert experiment != DEFAULT
    assert Experiment.from_toml(experiment.to_toml()) == experiment


@pytest.mark.parametrize("option", options(), ids=lambda o: o.key)
def test_the_id_follows_exactly_the_options_that_change_the_result(option):
    same = changed(option).id == DEFAULT.id
    assert same == (option.key in OUTSIDE_ID)
    assert same == (changed(option).fingerprint == DEFAULT.fingerprint)


@pytest.mark.parametrize("option", options(), ids=lambda o: o.key)
def test_every_option_has_help_a_flag_of_its_own_and_a_default_that_parses(option):
    assert option.help
    assert not option.help.endswith(".")
    assert [o.flag for o in options()].count(option.flag) == 1
    text = ",".join(map(str, option.default)) if option.is_list else str(option.default)
    assert option.parse(text) == option.default


@pytest.mark.parametrize("option", [o for o in options() if isinstance(o.field.metadata["valid"], Interval)])
def test_ranges_hold_their_ends_and_nothing_beyond(option):
    valid = option.field.metadata["valid"]
    step = 1 if option.type is int else 1e-9
    cases = [(valid.low, not valid.low_open), (valid.low - step, False)]
    if valid.high < math.inf:
        cases += [(valid.high, not valid.high_open), (valid.high + step, False)]
    for value, allowed in cases:
        # what keeps the bound from contradicting another option's default
        context = {"numbers.weight_bits": 2, "prune.gamma_weight": 1.0}
        typed = option.type(value)
        given = (typed,) * 3 if option.key == "input_shape" else (typed,) if option.is_list else typed
        if option.key == "numbers.weight_bits":
            context["numbers.master_bits"] = 32
        if allowed:
            DEFAULT.with_options(context | {option.key: given})
        else:
            with pytest.raises(QtrainError, match=option.flag):
                DEFAULT.with_options(context | {option.key: given})


@pytest.mark.parametrize(
    ("options_given", "message"),
    [
        ({"numbers.weight_bit": 4}, "unknown key 'numbers.weight_bit'; did you mean 'numbers.weight_bits'?"),
        ({"modle": "lenet"}, "unknown key 'modle'; did you mean 'model'?"),
        ({"lr": 1.0}, "unknown key 'lr'; did you mean 'optimizer.lr'?"),
        ({"weight_bits": 4}, "unknown key 'weight_bits'; did you mean 'numbers.weight_bits'?"),
        ({"bits": 4}, "unknown key 'bits'; did you mean 'numbers.bits'?"),
        ({"nubers.plan": "fixed"}, "unknown key 'nubers'; did you mean 'numbers'?"),
        ({"numbers.weight_bits": 17}, "numbers.weight_bits (--weight-bits) = 17: must be 2 to 16"),
        ({"numbers.weight_bits": True}, "numbers.weight_bits (--weight-bits) = True: must be a whole number"),
        ({"numbers.weight_bits": 4.0}, "numbers.weight_bits (--weight-bits) = 4.0: must be a whole number"),
        ({"filter.rate": 0}, "filter.rate (--filter-rate) = 0: must be above 0 and at most 1"),
        ({"prune.rate": 1.0}, "prune.rate (--prune-rate) = 1.0: must be at least 0 and below 1"),
        ({"optimizer.lr": math.inf}, "optimizer.lr (--lr) = inf: must be above 0"),
        ({"numbers.plan": "fixt"}, "did you mean 'fixed'?"),
        ({"numbers.plan": {"fixed": 1}}, "numbers.plan"),
        ({"input_shape": "3,32"}, "must be C,H,W"),
        ({"input_shape": "3,32,x"}, "input_shape (--input-shape) = '3,32,x': must be a whole number"),
        ({"run.devices": 3}, "run.devices (--device) = 3: must be a list of text"),
        ({"data": "mnist"}, "data = 'mnist': must be a table, [data]"),
        ({"model": "a\nb"}, "must be text without control characters"),
        ({"seed": 10**400}, "seed (--seed) = "),
        ({"optimizer.lr": 10**400}, "optimizer.lr (--lr) = "),
        ({"optimizer.schedule": "step"}, "needs optimizer.milestones"),
        ({"optimizer.milestones": [5, 5]}, "must be ascending"),
        ({"numbers.master_bits": 6}, "must be at least numbers.weight_bits = 8"),
        ({"prune.gamma_error": 0}, "prune.gamma_weight and prune.gamma_error are both 0"),
        ({"layers": {"conv*": {"weight_bit": 4}}}, "layers.'conv*': unknown key 'weight_bit'; did you mean"),
        ({"layers": {"conv*": {"weight_bits": 1}}}, "layers.'conv*'.weight_bits = 1: must be 2 to 16"),
        ({"layers": {"conv*": {"master_bits": 6}}}, "layers.'conv*': numbers.master_bits"),
        ({"layers": {"conv*": {}}}, "must be a table with at least one of prune_keep"),
        ({"layers": 3}, "layers: must be tables"),
        ({"layers": {"a\nb": {"weight_bits": 4}}}, "must be text without control characters"),
        ({"run.devices": [10**5000]}, "run.devices (--device) = a huge list: must be text"),
        ({"filter.alpha_up": math.nan}, "filter.alpha_up (--filter-alpha-up) = nan: must be above 1"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(options_given, message):
    with pytest.raises(QtrainError) as caught:
        DEFAULT.with_options(options_given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "7", 7),
        ("optimizer.lr", "1e-2", 0.01),
        ("data.augment", "Yes", True),
        ("data.augment", "0", False),
        ("input_shape", "3, 32,32", (3, 32, 32)),
        ("run.devices", "", ()),
        ("model", "a.b:c", "a.b:c"),
    ],
)
def test_options_are_read_from_a_command_line(key, text, value):
    (option,) = (o for o in options() if o.key == key)
    assert option.parse(text) == value


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("seed", "1.5", "seed (--seed) = '1.5': must be a whole number"),
        ("optimizer.lr", "fast", "must be a number"),
        ("data.augment", "maybe", "must be true or false"),
        ("filter.kind", "ohm", "did you mean 'ohem'?"),
        ("seed", "9" * 5000, "must be a whole number"),
    ],
)
def test_a_command_lines_mistakes_are_named(key, text, message):
    (option,) = (o for o in options() if o.key == key)
    with pytest.raises(QtrainError) as caught:
        option.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("n", range(2, 17))
def test_bits_set_the_four_roles(n):
    numbers = DEFAULT.bits(n).numbers
    widths = (numbers.weight_bits, numbers.activation_bits, numbers.error_bits, numbers.gradient_bits)
    assert widths == (n, n, n, n)
    assert numbers.norm_bits == max(8, n)  # never narrower than the activations made of it
    assert (
        dataclasses.replace(numbers, norm_bits=8, weight_bits=8, activation_bits=8, error_bits=8, gradient_bits=8)
        == Numbers()
    )


@pytest.mark.parametrize("n", [-1, 0, 1, 17, 31, 33, 8.0, "8", True])
def test_other_bits_are_refused(n):
    with pytest.raises(QtrainError, match="must be 2 to 16, or 32 for float32"):
        DEFAULT.bits(n)


def test_32_bits_are_float32_whatever_the_widths_were_and_fewer_bits_lead_back():
    assert DEFAULT.bits(32).numbers.plan == "float32"
    assert DEFAULT.bits(4).bits(32).id == DEFAULT.bits(32).id
    assert DEFAULT.bits(32).bits(8) == DEFAULT


def test_a_width_given_with_bits_wins_over_it_in_either_order():
    given = {"numbers.error_bits": 12, "numbers.bits": 4}
    for pairs in (given.items(), reversed(given.items())):
        numbers = DEFAULT.with_options(dict(pairs)).numbers
        assert (numbers.weight_bits, numbers.error_bits) == (4, 12)


def test_of_the_layer_rules_that_match_later_ones_win_key_by_key():
    experiment = DEFAULT.with_layer("layer1.*", weight_bits=4, error_bits=6).with_layer(
        "*.conv1", weight_bits=2, prune_keep=0.25
    )
    one, both = experiment.numbers_for("layer1.conv2"), experiment.numbers_for("layer1.conv1")
    assert (one.weight_bits, one.error_bits) == (4, 6)
    assert (both.weight_bits, both.error_bits) == (2, 6)
    assert experiment.numbers_for("Layer1.conv2") == DEFAULT.numbers
    assert experiment.prune_keep_for("layer1.conv1") == 0.25
    assert experiment.prune_keep_for("layer1.conv2") == DEFAULT.prune.keep


def test_a_rule_replaces_the_earlier_one_of_its_glob_and_the_order_of_rules_enters_the_id():
    first = DEFAULT.with_layer("a*", weight_bits=4).with_layer("*b", weight_bits=6)
    assert first.with_layer("a*", error_bits=4).numbers_for("ab") == Numbers(weight_bits=6, error_bits=4)
    second = DEFAULT.with_layer("*b", weight_bits=6).with_layer("a*", weight_bits=4)
    assert first.numbers_for("ab") != second.numbers_for("ab")
    assert first.id != second.id
    with pytest.raises(QtrainError, match="two rules for one glob"):
        dataclasses.replace(first, layers=first.layers * 2)


def test_rules_that_contradict_each_other_only_together_are_refused_where_they_meet():
    experiment = DEFAULT.with_layer("a*", master_bits=8).with_layer("*b", weight_bits=12)
    with pytest.raises(QtrainError, match="must be at least"):
        experiment.numbers_for("ab")


def test_sections_are_checked_by_type_and_by_value_from_python_too():
    with pytest.raises(QtrainError, match="numbers = 'fixed': must be Numbers"):
        Experiment(numbers="fixed")
    with pytest.raises(QtrainError, match="must be 2 to 16"):
        Numbers(weight_bits=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT.seed = 1
    assert hash(Experiment()) == hash(DEFAULT)


def test_the_id_depends_on_the_code_but_the_fingerprint_does_not(monkeypatch):
    before = DEFAULT.id, DEFAULT.fingerprint
    monkeypatch.setattr("qtrain.experiment.description.code_version", lambda: "000000000000")
    assert DEFAULT.id != before[0]
    assert DEFAULT.fingerprint == before[1]


def test_the_code_version_changes_with_a_byte_of_the_rooms_that_compute(tmp_path, monkeypatch):
    room = tmp_path / "qtrain" / "layers"
    (tmp_path / "qtrain" / "experiment").mkdir(parents=True)
    room.mkdir()
    monkeypatch.setattr(identity, "__file__", str(tmp_path / "qtrain" / "experiment" / "identity.py"))

    def version(name, text):
        (room / name).write_text(text)
        return code_version.__wrapped__()

    empty = version("notes.txt", "not code")
    first = version("conv.py", "x = 1\n")
    assert len({empty, first, version("conv.py", "x = 2\n")}) == 3
    assert version("conv.py", "x = 1\n") == first
