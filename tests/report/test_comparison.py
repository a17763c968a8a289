"""Rows, fronts and budgets against values worked out by hand."""

import csv
import io
import json
import statistics
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from qtrain.compare import compare_runs, comparison
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.report import Budget, compare, export, read_runs, table
from qtrain.report.pareto import dominates, front
from qtrain.report.settings import differences, uniform_bits
from tests.report.finished import BATCH, N_STEPS, finished_run

POINTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12)


@given(POINTS)
def test_the_front_is_what_no_point_dominates_and_it_dominates_the_rest(points):
    marks = front(points)
    on = [point for point, mark in zip(points, marks, strict=True) if mark]
    off = [point for point, mark in zip(points, marks, strict=True) if not mark]
    assert not any(dominates(a, b) for a in on for b in on)
    assert all(any(dominates(a, b) for a in on) for b in off)


def test_front_of_four_points_by_hand():
    # (2, 2) is beaten by (1, 2); equal points stand together
    assert front([(1, 2), (2, 1), (2, 2), (1, 2)]) == [True, True, False, True]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two settings at two seeds: 4 bits 0.6 and 0.8, 16 bits 0.9 and 0.9."""
    root = tmp_path_factory.mktemp("runs")
    for bits, accuracies in ((4, (0.6, 0.8)), (16, (0.9, 0.9))):
        for seed, accuracy in enumerate(accuracies):
            finished_run(root / f"{bits}-{seed}", accuracy, numbers__bits=bits, seed=seed)
    return root


def test_a_row_is_the_mean_over_its_seeds_and_equals_the_folders(root):
    rows = compare(read_runs([root])[0])
    by_bits = {row.values["bits"]: row for row in rows}
    assert set(by_bits) == {4, 16}
    row = by_bits[4]
    assert row.setting == "bits 4"
    assert (row.accuracy, row.seeds) == (pytest.approx(0.7), (0, 1))
    assert row.accuracy_std == pytest.approx(statistics.stdev([0.6, 0.8]))  # 0.1414: sqrt(0.01 + 0.01)
    bills = [json.loads((root / f"4-{seed}" / "result.json").read_text())["bills"][0] for seed in (0, 1)]
    assert row.energy_j == pytest.approx((bills[0]["energy_j"] + bills[1]["energy_j"]) / 2)
    assert row.step_energy_j == pytest.approx(row.energy_j / N_STEPS)
    assert row.instance_energy_j == pytest.approx(row.energy_j / (N_STEPS * BATCH))
    assert row.peak_ram_bytes == bills[0]["peak_ram_bytes"]


def test_a_run_is_priced_anew_only_where_it_was_not_priced(root):
    runs, _ = read_runs([root / "4-0"], ["stm32f746", "stm32l4r5"])
    assert [bill["device"] for bill in runs[0].bills] == ["stm32f746", "stm32l4r5"]
    assert runs[0].bills[1] == runs[0].result["bills"][0]
    assert runs[0].bills[0]["cycles"] != runs[0].bills[1]["cycles"]


def test_runs_priced_on_different_devices_are_compared_on_all_of_them(root, tmp_path):
    other = finished_run(tmp_path / "other", devices=("rp2040",), numbers__bits=4)
    rows = compare(read_runs([root / "16-0", other])[0])
    assert sorted({row.device for row in rows}) == ["rp2040", "stm32l4r5"]
    assert len(rows) == 4


def test_budgets_choose_the_best_within_or_name_what_binds(root):
    rows = {row.values["bits"]: row for row in compare(read_runs([root])[0])}
    both = list(rows.values())
    assert rows[4].peak_ram_bytes < rows[16].peak_ram_bytes
    assert Budget().best(both).row == rows[16]  # the more accurate
    small = Budget(max_ram_bytes=rows[4].peak_ram_bytes)
    assert small.best(both).row == rows[4]
    assert small.best(both).met
    accurate = Budget(min_accuracy=0.65).best(both)  # both are: the least energy
    assert accurate.row == min(both, key=lambda row: row.energy_j)
    # 16 bits miss the RAM, 4 bits the accuracy by (0.9 - 0.7) / (1 - 0.9) = 2
    torn = Budget(min_accuracy=0.9, max_ram_bytes=rows[4].peak_ram_bytes)
    assert torn.misses(rows[4]) == {"min_accuracy": pytest.approx(2)}
    assert not torn.best(both).met
    assert torn.best(both).row == rows[16]
    assert torn.best(both).binding == "max_ram_bytes"
    missed = 100 * (rows[16].peak_ram_bytes / rows[4].peak_ram_bytes - 1)
    assert table.answer_line(torn.best(both)).endswith(f"what binds: peak RAM, missed by {missed:.2g} %")
    tight = Budget(min_accuracy=0.95, max_ram_bytes=rows[16].peak_ram_bytes / 1.25).best([rows[16]])
    # accuracy (0.95 - 0.9) / (1 - 0.95) = 1 of the error it may have, RAM 1.25 - 1
    assert table.answer_line(tight).endswith("accuracy, missed by 5 points; also peak RAM, missed by 25 %")
    high = Budget(min_accuracy=0.95).best(both)  # 95 - 90
    assert table.answer_line(high).endswith("what binds: accuracy, missed by 5 points")


def test_a_setting_that_does_not_fit_is_on_the_front_only_where_none_fits(tmp_path):
    runs = {}
    for bits, accuracy in ((4, 0.6), (32, 0.9)):
        runs[bits] = finished_run(tmp_path / str(bits), accuracy, ("stm32l4r5", "stm32g0b1"), numbers__bits=bits)
    rows = compare(read_runs([tmp_path])[0])
    assert {row.device: row.fits for row in rows if row.values["bits"] == 32} == {"stm32l4r5": True, "stm32g0b1": False}
    assert {(row.device, row.values["bits"]) for row in rows if row.pareto} == {
        ("stm32l4r5", 4), ("stm32l4r5", 32), ("stm32g0b1", 4)}  # fmt: skip
    alone = compare(read_runs([runs[32]], ["stm32g0b1"])[0])
    assert [(row.fits, row.pareto) for row in alone] == [(False, True)]


def test_no_rows_no_answer():
    assert Budget(min_accuracy=0.9).best([]).row is None


def test_differences_speak_of_bits_where_bits_describe_all():
    eight, four, floating = Experiment(), Experiment().bits(4), Experiment().bits(32)
    assert [uniform_bits(e) for e in (eight, four, floating)] == [8, 4, 32]
    assert differences([eight, four, floating]) == [{"bits": 8}, {"bits": 4}, {"bits": 32}]
    mixed = eight.with_options({"numbers.weight_bits": 4})
    assert differences([eight, mixed]) == [{"weight-bits": 8}, {"weight-bits": 4}]
    assert differences([eight, eight.with_options({"seed": 5, "run.out": "x"})]) == [{}, {}]


def test_differences_name_the_rules_of_single_layers():
    roles = dict.fromkeys(("weight_bits", "activation_bits", "error_bits", "gradient_bits"), 4)
    ruled = Experiment().with_layer("fc", **roles, prune_keep=0.5).with_layer("conv*", error_bits=6)
    assert [row["layers"] for row in differences([Experiment(), ruled])] == [
        "-",
        "fc bits 4 prune-keep 0.5; conv* error-bits 6",
    ]


def test_csv_and_parquet_hold_the_rows(root, tmp_path):
    rows = compare(read_runs([root])[0])
    export.write_csv(rows, tmp_path / "rows.csv")
    found = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    assert [float(line["accuracy"]) for line in found] == [row.accuracy for row in rows]
    assert [line["bits"] for line in found] == [str(row.values["bits"]) for row in rows]
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    export.write_parquet(rows, tmp_path / "rows.parquet")
    assert parquet.read_table(tmp_path / "rows.parquet")["energy_j"].to_pylist() == [row.energy_j for row in rows]


def test_the_table_shows_every_setting_at_any_width(root):
    for width, terminal in ((60, True), (200, True), (40, False)):
        console = Console(width=width, force_terminal=terminal, record=True, file=io.StringIO())
        found = compare_runs([root])
        table.show(console, table.sorted_rows(found.rows, "accuracy"), found.answers, found.sweep, found.unfinished)
        text = console.export_text()
        assert text.index("90.0 % ± 0.0") < text.index("70.0 % ± 14.1")


def test_unfinished_runs_are_named_and_empty_folders_are_an_error(root, tmp_path):
    whole = finished_run(tmp_path / "a")
    begun = finished_run(tmp_path / "b", numbers__bits=4)
    for name in ("result.json", "SHA256SUMS"):
        (begun / name).unlink()
    found = compare_runs([tmp_path])
    assert [path for row in found.rows for path in row.runs] == [whole]
    assert found.unfinished == [begun]
    with pytest.raises(QtrainError, match="no finished run"):
        compare_runs([begun])
    (tmp_path / "empty").mkdir()
    with pytest.raises(QtrainError, match="no run there"):
        compare_runs([tmp_path / "empty"])


def test_options_that_would_train_are_refused_beside_finished_runs(root):
    with pytest.raises(QtrainError, match=r"filter\.rate"):
        comparison([str(root)], {"filter.rate": ("0.5",)})


def test_comparing_finished_runs_imports_no_torch(root):
    code = f"""if True:
        import sys
        from qtrain.compare import compare_runs
        compare_runs([{str(root)!r}], ["rp2040"])
        assert not {{"torch", "brevitas", "plotly"}} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)
