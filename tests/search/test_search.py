"""Search: its space, what it gives up, and an answer that holds, or the nearest miss."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

import cli
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment, load
from qtrain.report import Budget
from qtrain.report.table import answer_line
from qtrain.search import Space, search
from qtrain.search.space import BATCH, ENDS, ROLES, SUBSET
from qtrain.search.trials import GENERATION, Trials
from qtrain.sweep import Grid
from qtrain.sweep.worker import STOPPED, Watch
from tests.report.finished import finished_run

pytest.importorskip("optuna", reason="needs the extra search")


def test_what_is_given_is_not_varied_and_lists_are():
    texts = {"numbers.bits": ["8"], "filter.rate": ["0.2,0.4"], "train.batch_size": ["16"]}
    space = Space.of(Grid().with_texts(texts), texts)
    assert set(space.dimensions) == {"filter.rate", "prune.keep", SUBSET}
    assert space.dimensions["filter.rate"] == (0.2, 0.4)
    assert {*ROLES, ENDS} <= Space.of(Grid()).dimensions.keys()
    assert Space.of(Grid()).dimensions[BATCH] == (1, 4, 16, 64)


def test_what_the_base_experiment_does_not_use_is_not_varied():
    dense = Experiment().with_options({"filter.kind": "none", "prune.kind": "stochastic"})
    assert not {"filter.rate", "prune.keep"} & Space.of(Grid(dense)).dimensions.keys()
    either = Grid(dense, {"filter.kind": ("none", "instance")})
    assert "filter.rate" in Space.of(either).dimensions


def test_subsets_leave_out_the_largest_layer_and_of_a_trained_network_the_first_ones():
    # digits-cnn: conv1 160 parameters, conv2 4,640, fc 5,130
    assert Space.of(Grid()).dimensions[SUBSET] == ("all", "conv1,conv2")
    trained = Space.of(Grid(Experiment(init="weights.safetensors")))
    assert trained.dimensions[SUBSET] == ("all", "conv1,conv2", "conv2,fc", "fc")


def test_accuracy_is_lost_to_the_best_dense_training_of_what_spares_no_work():
    grid = Grid().with_texts({"optimizer.lr": ["0.01,0.1"], "train.batch_size": ["8,16"], "numbers.bits": ["4,8"]})
    dense = Space.of(grid).baselines()
    assert {(one.optimizer.lr, one.train.batch_size) for one in dense} == {
        (0.01, 8), (0.01, 16), (0.1, 8), (0.1, 16)}  # fmt: skip
    assert {(one.numbers.plan, one.filter.kind, one.prune.kind, one.train.layers) for one in dense} == {
        ("float32", "none", "none", "all")}  # fmt: skip


def test_the_ends_have_a_rule_each_and_the_others_none():
    chosen = Space.of(Grid()).experiment({"numbers.weight_bits": 4, ENDS: 8})
    assert [chosen.numbers_for(name).weight_bits for name in ("conv1", "conv2", "fc")] == [8, 4, 8]


def test_a_hopeless_trial_is_one_above_its_energy_or_below_its_floor():
    now = SimpleNamespace(step=50, n_steps=100, accuracy=0.5, energy_j=2.0)
    Watch().check(now)
    Watch(max_energy_j=2.0, max_step_energy_j=0.02, floors=((0.5, 0.5), (0.75, 0.9))).check(now)
    for hopeless in (Watch(max_energy_j=1.9), Watch(max_step_energy_j=0.019), Watch(floors=((0.25, 0.2), (0.5, 0.6)))):
        with pytest.raises(QtrainError, match=STOPPED):
            hopeless.check(now)


class _Fake(Trials):
    """Trials whose runs are made, not trained: accuracy and RAM grow with the bits."""

    def run(self, n_workers=0, engine="local", address=""):
        self._advance()
        while self.waiting:
            trial = self.waiting.pop(0)
            bits = trial.experiment.numbers.weight_bits
            finished_run(trial.path, bits / 10, numbers__bits=bits, seed=trial.experiment.seed)
            self._done(trial, "")


@pytest.fixture
def made(tmp_path):
    """Trials over 4 to 9 bits."""
    base = Experiment().with_options({"filter.kind": "none"})
    return lambda budget, n: _Fake(Space(base, {"numbers.bits": (4, 5, 6, 7, 8, 9)}), budget, n, tmp_path)


def test_proposals_come_in_generations_and_finished_runs_are_reused(made):
    trials = made(Budget(), 10)
    trials.run()
    assert trials.sweep.n_trials == 10
    assert len(trials.sweep.computed) == len({run.path for run in trials.runs}) <= 6
    assert len(trials.sweep.computed) + len(trials.sweep.reused) == 10
    paths = [path.name for path in trials.sweep.folders]
    again = made(Budget(), 10)
    again.run()
    assert [path.name for path in again.sweep.folders] == paths  # the same proposals, all of them there
    assert again.sweep.computed == []


def test_an_accuracy_limit_gives_up_what_no_trial_made_up_for(made):
    trials = made(Budget(min_accuracy=0.9), 2 * GENERATION)
    trials.run()
    # finished_run measures the accuracy at steps 2 and 3 of 10 and ends with the same: nothing is gained after half
    assert trials._floors() == ((0.5, 0.9), (0.75, 0.9))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A tiny search of real runs that can be met: its JSON, folder and file."""
    out = tmp_path_factory.mktemp("search")
    arguments = ["search", "--bits", "4,8", "--filter", "none", "--prune", "none", "--batch-size", "16", "--steps", "6",
                 "--train", "all", "--trials", "2", "--device", "stm32f746", "--out", str(out),
                 "-o", str(out / "best.toml"), "--json"]  # fmt: skip
    done = CliRunner().invoke(cli.main, [*arguments, "--max-ram-bytes", "300000"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), out, arguments


def test_the_answer_is_an_experiment_that_was_checked_at_a_second_seed(searched):
    found, out, _ = searched
    assert found["met"]
    assert found["row"]["seeds"] == [0, 1]
    assert found["row"]["peak_ram_bytes"] <= 300000
    best = load(out / "best.toml")
    first = json.loads((out / best.with_options({"seed": 0}).id / "result.json").read_text())
    second = json.loads((out / best.with_options({"seed": 1}).id / "result.json").read_text())
    assert found["row"]["accuracy"] == pytest.approx((first["accuracy"] + second["accuracy"]) / 2)


def test_limits_that_cannot_be_met_are_answered_with_the_nearest_miss(searched):
    _, out, arguments = searched
    done = CliRunner().invoke(cli.main, [*arguments, "--max-ram-bytes", "1000"])
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["met"]
    assert found["binding"] == "max_ram_bytes"
    assert found["computed"] == 0
    results = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}
    ram_bytes = {name: result["bills"][0]["peak_ram_bytes"] for name, result in results.items()}
    assert ram_bytes[load(out / "best.toml").id] == found["row"]["peak_ram_bytes"] == min(ram_bytes.values())


def test_an_answer_names_the_setting_by_what_differs_from_the_base(tmp_path):
    for bits in (4, 8):
        experiment = Experiment().with_options({"numbers.bits": bits, "filter.kind": "none"})
        finished_run(tmp_path / experiment.id, bits / 10, numbers__bits=bits)
    space = Space(Experiment().with_options({"filter.kind": "none"}), {"numbers.bits": (4, 8)})
    again = Experiment().with_options({"numbers.bits": 8, "filter.kind": "none", "seed": 1})
    finished_run(tmp_path / again.id, 0.6, numbers__bits=8, seed=1)
    found = search(space, Budget(min_accuracy=0.65), n_trials=4, out=tmp_path)
    assert found.answer.met  # 0.7, the mean of 0.8 and 0.6, is above 0.65
    assert "70.0 % ± 14.1" in answer_line(found.answer)
    assert found.experiment.numbers.weight_bits == 8
    assert found.to_toml().startswith("# best with accuracy at least 65.0 %")


def test_nothing_to_search_is_an_error():
    texts = {"numbers.bits": ["8"], "filter.rate": ["1"], "prune.keep": ["1"], "train.batch_size": ["8"],
             SUBSET: ["all"]}  # fmt: skip
    with pytest.raises(QtrainError, match="nothing to search"):
        Space.of(Grid().with_texts(texts), texts)
