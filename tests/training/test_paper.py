"""What the tables of arXiv 2007.03213 rest on: accounting, schedules, what pruning left, and the tables themselves."""

import json
import signal

import numpy as np
import pytest

from benchmarks.paper.__main__ import folder
from benchmarks.paper.render import beside_curve, differences, interval, markdown, spread
from benchmarks.paper.rows import TABLES
from qtrain.experiment import Experiment
from qtrain.simulate import resume_run, simulate_experiment
from qtrain.store import Run
from qtrain.summary import RunRecord
from qtrain.training import loop
from qtrain.training.rates import learning_rate

SMALL = {
    "train.steps": 6, "train.batch_size": 16, "run.engine": "torch", "numbers.bits": 32, "filter.kind": "none",
    "prune.kind": "none",
}  # fmt: skip


def experiment(folder, **options):
    dotted = {key.replace("__", "."): value for key, value in options.items()}
    return Experiment().with_options(SMALL | {"run.out": str(folder)} | dotted)


def test_the_filters_rate_halves_where_the_main_ones_is_divided_by_ten():
    """Wu et al. 2020: the filter 0.1, then 0.05 after 940 steps; the main network x 0.1 at 32k and 48k."""
    settings = Experiment().with_options({
        "filter.lr": 0.1, "filter.schedule": "step", "filter.milestones": (940,), "optimizer.lr": 0.1,
        "optimizer.schedule": "step", "optimizer.milestones": (32_000, 48_000),
    })  # fmt: skip
    steps = (0, 939, 940, 40_000, 63_999)
    assert [learning_rate(settings.filter, s, 64_000) for s in steps] == [0.1, 0.1, 0.05, 0.05, 0.05]
    assert [learning_rate(settings.optimizer, s, 64_000) for s in steps] == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.001])


@pytest.mark.parametrize(("kind", "bits"), [("random", 32), ("random", 8), ("ohem", 32), ("selective-backprop", 8)])
def test_the_loss_over_m_makes_the_update_k_over_m_times_as_large(kind, bits, tmp_path):
    """One step without momentum and decay: w1 - w0 of the two divisors stand as k, the instances that go backward, to
    m; random chooses them before the forward pass, ohem and selective backprop after it. In fixed point each update
    is rounded to the master's grid, a step of at most 2^-14 of weights below one."""
    moved = {}
    for over in ("kept", "streamed"):
        given = {"train__steps": 1, "optimizer__momentum": 0.0, "optimizer__weight_decay": 0.0, "numbers__bits": bits}
        start = simulate_experiment(experiment(tmp_path / f"{over}0", optimizer__lr=1e-12, **given))
        result = simulate_experiment(
            experiment(
                tmp_path / over, optimizer__lr=0.5, filter__kind=kind, filter__mean_over=over, **given
            )
        )  # fmt: skip
        assert start["instances"]["kept"] == 16
        share = result["instances"]["backward"] / 16
        assert result["instances"]["kept"] == (16 * share if kind == "random" else 16)
        before, after = (Run.open(tmp_path / name).weights()["conv2.weight"] for name in (f"{over}0", over))
        moved[over] = np.asarray(after, dtype=float) - before
    assert 0 < share < 1
    assert np.abs(moved["kept"]).max() > 100 * 2.0**-14 * (bits == 8)
    assert np.allclose(moved["streamed"], share * moved["kept"], atol=1e-6 if bits == 32 else 3 * 2.0**-14)


def test_the_papers_accounting_by_hand(tmp_path):
    """Without filter network and pruning the remaining computation is the kept share; at 8 bits that over 7.5."""
    dense = simulate_experiment(experiment(tmp_path / "dense"))
    assert dense["paper_accounting"]["remaining"] == 1.0
    for bits, divisor in ((32, 1.0), (8, 7.5)):
        result = simulate_experiment(
            experiment(tmp_path / str(bits), filter__kind="random", numbers__bits=bits, train__steps=14)
        )
        share = result["instances"]["kept"] / result["instances"]["seen"]
        assert result["paper_accounting"]["remaining"] == pytest.approx(share / divisor)


def test_the_record_says_what_pruning_left_of_each_layer(tmp_path):
    result = simulate_experiment(experiment(tmp_path / "run", prune__kind="channel+stochastic", prune__keep=0.25))
    pruning = result["pruning"]
    assert set(pruning["density"]) == set(pruning["never_kept"]) == {"conv1", "conv2"}
    assert all(0 < share <= 1 for share in pruning["density"].values())
    # 6 steps keep 4 of 16 and 8 of 32 channels each: at least those of one, at most all are kept once
    assert all(0 <= share <= 0.75 for share in pruning["never_kept"].values())
    assert simulate_experiment(experiment(tmp_path / "plain"))["pruning"] == {}


def test_stochastic_depth_trains_resumes_and_saves(tmp_path):
    given = {"model": "resnet8", "input_shape": (1, 8, 8), "train__survival": 0.2, "numbers__bits": 8}
    whole = simulate_experiment(experiment(tmp_path / "whole", **given))

    def interrupt(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(loop.Interrupted):
        simulate_experiment(experiment(tmp_path / "part", **given), interrupt)
    resumed = resume_run(str(tmp_path / "part"))
    assert resumed["accuracy"] == whole["accuracy"]
    assert resumed["macs"] == whole["macs"]
    one = RunRecord.from_json(Run.open(tmp_path / "whole").trace()).schedule.network.macs
    assert whole["macs"]["by_phase"]["forward"] < 6 * 16 * one


def test_every_row_is_an_experiment():
    for table in TABLES.values():
        for row in table.rows:
            assert table.experiment(row, 1, 2).train.epochs == 2
        assert {table.reference, *table.curve, *table.beside} <= set(table.rows)


def test_the_interval_is_students():
    """1, 2, 3: mean 2, standard deviation 1; t(0.95, 2 degrees) = 2.920, half-width 2.920 / sqrt(3) = 1.686."""
    assert interval([1.0, 2.0, 3.0]) == "+2.00 [+0.31, +3.69]"
    assert spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert spread([1.0]) == "1.00"


def test_a_row_that_did_not_run_shows_its_command(tmp_path):
    text = markdown(TABLES["lenet"], tmp_path, 2, 5)
    assert "python -m benchmarks.paper train lenet eif+emp --epochs 2 --seeds 5" in text


def test_a_table_of_finished_runs(tmp_path):
    """Two seeds of the reference and of a row 1 point above it in both: +1.00, an interval without width."""
    table = TABLES["mcu"]
    for row, accuracy in (("sgd", 0.9), ("eif+emp", 0.91)):
        for seed in (0, 1):
            run = tmp_path / f"{row}-{seed}"
            run.mkdir()
            result = {
                "accuracy": accuracy + seed / 100, "saved": {"macs": 0.5, "bitops": 0.75}, "wall_time_s": 60,
                "paper_accounting": {"remaining": 0.4}, "instances": {"seen": 10, "kept": 3, "uncertain": 1},
                "bills": [{"saved_energy_vs_fp32": 0.25}], "pruning": {"never_kept": {"conv1": 0.5}},
                "warnings": ["too dear"] * seed,
            }  # fmt: skip
            (run / "result.json").write_text(json.dumps(result))
            (run / "env.json").write_text(json.dumps({"code_version": "abc", "commit": "0123456789"}))
            (run / "experiment.toml").write_text(table.experiment(row, seed, 1).to_toml())
    text = markdown(table, tmp_path, 1, 2)
    assert "| eif+emp | 2 | 91.50 ± 0.71 | +1.00 [+1.00, +1.00] | 50.0 ± 0.0 | 60.0 ± 0.0 | 75.0 ± 0.0 |" in text
    assert "conv1 50" in text
    assert "0123456 (abc)" in text
    assert "- sgd, 1 of 2 runs warned: too dear" in text


def test_a_run_of_other_settings_is_not_a_rows(tmp_path, capsys):
    """A run cut short, or of a row changed since, is left out and named."""
    run = tmp_path / "sgd-0"
    run.mkdir()
    other = TABLES["mcu"].experiment("sgd", 0, 1).with_options({"optimizer.lr": 0.5})
    (run / "experiment.toml").write_text(other.to_toml())
    (run / "result.json").write_text("{}")
    assert "| sgd | 0 |" in markdown(TABLES["mcu"], tmp_path, 1, 2)
    assert "sgd-0: another experiment than the row" in capsys.readouterr().err


def test_what_is_cut_short_or_validated_lies_apart():
    table = TABLES["mcu"]
    names = [folder("out", table, 1, steps=n, val_split=share).name for n in (0, 2) for share in (0.0, 0.5)]
    assert names == ["mcu-1", "mcu-1-val-0.5", "mcu-1-2-steps", "mcu-1-2-steps-val-0.5"]


def test_a_point_is_compared_with_the_curve_at_its_own_cost():
    """Curve 0.98 at 60 % saved and 0.96 at 80 %; at 75 % it is 0.965, and 0.965 and 0.975 are 0 and 1 point above it:
    0.50, standard deviation 0.71, over sqrt(2) 0.50. At 90 % there is no curve."""

    def runs(share, *accuracies):
        return {seed: {"accuracy": a, "saved": {"macs": share}} for seed, a in enumerate(accuracies)}

    rows = {
        "fast": runs(0.8, 0.96, 0.96, 0.96),
        "slow": runs(0.6, 0.98, 0.98),
        "absent": {},
        "point": runs(0.75, 0.965, 0.975),
        "far": runs(0.9, 0.5),
    }
    lines = beside_curve(rows, ("fast", "slow", "absent"), ("point", "far", "absent"))
    assert len(lines) == 2
    assert "+0.50 points, standard error 0.50, 2 seeds" in lines[1]
    assert differences(rows["slow"], rows["fast"]) == pytest.approx([2.0, 2.0])
