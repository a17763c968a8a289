"""Grids: combinations, texts from a command line, files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.sweep import Grid, read_grid

BITS = st.lists(st.integers(2, 16), min_size=1, max_size=4, unique=True)
RATES = st.lists(st.sampled_from([0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=3, unique=True)


@given(BITS, RATES, st.integers(1, 3))
def test_a_grid_is_the_product_of_its_axes_and_seeds(bits, rates, n_seeds):
    grid = Grid().with_texts({"numbers.bits": [",".join(map(str, bits))], "filter.rate": map(str, rates)}, n_seeds)
    trials = grid.experiments()
    assert len(trials) == len(bits) * len(rates) * n_seeds
    assert len({trial.id for trial in trials}) == len(trials)
    found = {(t.numbers.weight_bits, t.filter.rate, t.seed) for t in trials}
    assert found == {(b, r, s) for b in bits for r in rates for s in range(n_seeds)}


def test_seeds_count_from_the_base_seed_and_equal_trials_are_one():
    trials = Grid(Experiment(seed=5), {"numbers.weight_bits": (8, 8)}, 2).experiments()
    assert [trial.seed for trial in trials] == [5, 6]


def test_text_with_commas_of_its_own_is_one_value():
    grid = Grid().with_texts({"train.layers": ["conv1,fc", "all"], "run.devices": ["rp2040,eyeriss"]})
    assert grid.axes == {"train.layers": ("conv1,fc", "all")}
    assert grid.base.run.devices == ("rp2040", "eyeriss")


def test_switches_may_be_axes():
    grid = Grid().with_texts({"filter.adaptive": ["true,false"], "data.augment": ["true"]})
    assert grid.axes == {"filter.adaptive": (True, False)}
    assert grid.base.data.augment


def test_a_grid_from_a_file_is_overridden_by_options(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('model = "lenet5"\n[grid]\n"numbers.bits" = [4, 32]\n"filter.rate" = [1, 0.3]\nseeds = 3\n')
    grid = read_grid(path)
    assert grid.base.model == "lenet5"
    assert len(grid.experiments()) == 2 * 2 * 3
    assert len(grid.with_texts({"filter.rate": ["0.5"]}, 1).experiments()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\n'numbers.bit' = [4]", r"numbers\.bits"),
        ("[grid]\n'numbers.bits' = 4", "must be a list"),
        ("[grid]\n'numbers.bits' = [4, 17]", "2 to 16"),
        ("[grid]\nseeds = 0", "at least one seed"),
        ("[grid]\nseeds = 'many'", "whole number"),
        ("grid = 3", "table of lists"),
        ("[grid]\n'run.out' = ['a']", "unknown option"),
    ],
)
def test_a_wrong_grid_file_is_one_line_naming_the_file(tmp_path, text, message):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(QtrainError, match=message) as error:
        read_grid(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_an_invalid_combination_names_its_values():
    grid = Grid().with_texts({"numbers.weight_bits": ["8,16"], "numbers.master_bits": ["8,16"]})
    with pytest.raises(QtrainError, match=r"numbers.weight_bits = 16, numbers.master_bits = 8"):
        grid.experiments()


def test_seeds_are_given_one_way():
    with pytest.raises(QtrainError, match="--seeds"):
        Grid().with_texts({"seed": ["1,2"]}, 3)
