"""Experiments round-trip through TOML exactly; any other text is refused in one line."""

import os
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment, load, options
from qtrain.experiment.toml import MAX_BYTES, dump_tables

TEXT = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=20)
LAYER = st.fixed_dictionaries(
    {},
    optional={
        "weight_bits": st.integers(2, 8),
        "prune_keep": st.floats(1e-9, 1),
        "master_bits": st.integers(16, 32),
    },
).filter(bool)


def values(option):
    valid = option.field.metadata["valid"]
    if option.key == "input_shape":
        return st.one_of(st.just(()), st.tuples(*[st.integers(1, 2**16)] * 3))
    if option.key.endswith((".milestones", ".schedule")) or option.key == "numbers.update":
        return st.just(option.default)
    if option.key == "numbers.plan":
        return st.sampled_from(("fixed", "float32"))
    if option.key == "numbers.master_bits":
        return st.integers(16, 32)
    if option.key == "numbers.accumulator_bits":
        return st.just(0) | st.integers(8, 64)
    if option.key == "prune.gamma_error":
        return st.floats(1e-300, 1e300)
    if option.key.endswith("_format"):  # of those that exist at every width the other keys draw
        wide = option.key in ("numbers.master_format", "numbers.momentum_format")
        return st.sampled_from(("fixed", "float32") if wide else ("fixed", "float32", "int"))
    if option.choices:
        return st.sampled_from(option.choices)
    one = {
        bool: st.booleans(),
        str: TEXT,
        int: st.integers(int(valid.low), int(valid.high)) if option.type is int else st.nothing(),
        float: st.floats(valid.low, min(valid.high, 1e308), exclude_min=valid.low_open, exclude_max=valid.high_open)
        if option.type is float
        else st.nothing(),
    }[option.type]
    return st.lists(one, max_size=3).map(tuple) if option.is_list else one


EXPERIMENTS = st.builds(
    lambda given, layers: Experiment().with_options(given | {"layers": layers}),
    st.fixed_dictionaries({}, optional={o.key: values(o) for o in options()}),
    st.dictionaries(TEXT, LAYER, max_size=3),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXPERIMENTS)
def test_to_toml_and_back_is_the_same_experiment(experiment):
    text = experiment.to_toml()
    assert Experiment.from_toml(text) == experiment
    assert Experiment.from_toml(text).to_toml() == text
    assert Experiment.from_toml(text).id == experiment.id


LINES = [line for line in Experiment().with_layer("conv*", weight_bits=4).to_toml().splitlines() if line]
VALUES = st.sampled_from(
    ["-1", "0", "1", "99", "1e400", "nan", "inf", "true", '""', '"x"', "[]", "[1, 2]", "[[1]]", "{a = 1}",
     "1979-05-27", "9" * 5000, "[" * 2000, '"\\u0000"', "'''", "0x10", '"\\uD800"']
)  # fmt: skip


@st.composite
def mangled(draw):
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(lines) - 1))
        change = draw(st.sampled_from(["drop", "double", "value", "text", "swap"]))
        if change == "drop" and len(lines) > 1:
            del lines[i]
        elif change == "double":
            lines.insert(i, lines[i])
        elif change == "value":
            lines[i] = lines[i].partition("=")[0] + "= " + draw(VALUES)
        elif change == "text":
            cut = draw(st.integers(0, len(lines[i])))
            lines[i] = lines[i][:cut] + draw(st.text(max_size=8)) + lines[i][cut:]
        else:
            lines[i] = lines[i][::-1]
    return "\n".join(lines)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(mangled(), st.text(max_size=200)))
def test_any_text_is_an_experiment_or_one_line_naming_the_file(text):
    try:
        experiment = Experiment.from_toml(text, "some.toml")
    except QtrainError as error:
        assert str(error).startswith("some.toml: ")
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        assert Experiment.from_toml(experiment.to_toml()) == experiment


def test_keys_left_out_keep_their_defaults_and_bits_is_short_for_four_widths(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text('seed = 7\n[numbers]\nbits = 4\nerror_bits = 6\n[layers."layer1.*"]\nweight_bits = 2\n')
    expected = Experiment(seed=7).bits(4).with_options({"numbers.error_bits": 6})
    assert load(path) == expected.with_layer("layer1.*", weight_bits=2)


def test_the_written_file_holds_every_key():
    tables = tomllib.loads(Experiment().to_toml())
    for option in options():
        section, _, name = option.key.rpartition(".")
        found = (tables[section] if section else tables)[name]
        assert found == (list(option.default) if option.is_list else option.default)


@pytest.mark.parametrize("tables", [{"a": {"b": {}}}, {"a": {}}, {"a": 1, "b": {"c d": {"": ['"\\', 1e-05, True]}}}])
def test_tables_of_any_depth_are_written_as_tomllib_reads_them(tables):
    assert tomllib.loads(dump_tables(tables)) == tables


def test_a_file_that_is_none_is_refused_by_name_and_without_waiting(tmp_path):
    fifo, big, binary = tmp_path / "fifo", tmp_path / "big.toml", tmp_path / "binary.toml"
    os.mkfifo(fifo)
    big.write_bytes(b"#" * (MAX_BYTES + 1))
    binary.write_bytes(b"model = '\xff'")
    for path in (tmp_path, tmp_path / "missing.toml", fifo, big, binary):
        with pytest.raises(QtrainError) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
