"""The calibration: what is shipped is what the fit says, and the model stays within its targets."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hwmodel import devices, fit, leave_out, measurements, refit, training_passes, validate
from hwmodel.confidence import error_class
from hwmodel.measurements import Row


@pytest.fixture(scope="module")
def report() -> dict:
    return validate.report()


def test_the_table_holds_67_microcontroller_rows_and_8_of_gap9() -> None:
    """18 systems x 4 tasks, less vww of three X-CUBE-AI 9 systems and kws of two float ones."""
    assert len(measurements.mcu_rows()) == 18 * 4 - 3 - 2
    assert len(measurements.rows()) == 67 + 8


@pytest.mark.parametrize("key", validate.TARGETS)
def test_targets_are_met(report: dict, key: str) -> None:
    assert report["summary"][key] <= validate.TARGETS[key]
    assert report["summary"]["met"][key]


def test_the_model_beats_macs_alone_at_least_twofold(report: dict) -> None:
    assert report["summary"]["leave_one_task_out"] < report["summary"]["macs_only"] / 2


def test_a_left_out_task_or_board_really_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubling what was left out leaves its prediction unchanged."""
    rows = measurements.mcu_rows()
    before = leave_out.one_task()

    def doubled(row: Row) -> Row:
        return dataclasses.replace(row, latency_s=2 * row.latency_s) if row.task == "kws" else row

    changed = tuple(doubled(row) for row in rows)
    monkeypatch.setattr(leave_out, "mcu_rows", lambda: changed)
    after = leave_out.one_task()
    for row in rows:
        if row.task == "kws":
            predicted = (1 + before[row]) * row.cycles
            assert (1 + after[doubled(row)]) * 2 * row.cycles == pytest.approx(predicted, rel=1e-6)


def test_the_shipped_fit_is_the_fit() -> None:
    """fitted.toml and the constants of the measured boards follow from the table; rerun validate --refit if not."""
    path = Path(fit.__file__).parent / "calibration" / "fitted.toml"
    shipped, anew = tomllib.loads(path.read_text()), tomllib.loads(refit.text())
    assert shipped.pop("error") == pytest.approx(anew.pop("error"), abs=0.0011)
    assert shipped.pop("measured") == anew.pop("measured")
    assert shipped.keys() == anew.keys()
    for what, tables in anew.items():
        for name, factors in tables.items():
            assert shipped[what][name] == pytest.approx(factors, abs=0.0011), (what, name)
    for board, constants in refit.board_constants(refit.parameters()).items():
        for key, value in constants.items():
            assert devices.load(board).value(key) == pytest.approx(value, abs=0.0011), (board, key)


def test_power_is_the_mean_of_energy_over_latency() -> None:
    """stm32l4r5 with X-CUBE-AI 7: 47.07, 44.90, 43.69 and 42.61 mW."""
    powers = [
        (row.energy_j or 0) / row.latency_s
        for row in measurements.mcu_rows()
        if (row.board, row.library, row.release) == ("stm32l4r5", "x-cube-ai-7", "v1.0")
    ]
    assert devices.load("stm32l4r5").value("power.default") == pytest.approx(sum(powers) / 4, rel=0.005)


@pytest.mark.parametrize("row", training_passes.rows(), ids=lambda r: f"{r['core']}-{r['kernels']}-{r['pass']}")
def test_training_passes_follow_the_kernel_measurements(row: dict) -> None:
    """The plain-c rows are those of other loops than the shipped ones, which differ by up to 18 %."""
    assert abs(row["error"]) < (0.19 if row["kernels"] == "plain-c" else 0.03)


def test_error_classes() -> None:
    assert "measured on this board" in error_class(devices.load("stm32l4r5"))
    assert "predicted from the cortex-m7 family" in error_class(devices.load("stm32f746"))
    assert "cortex-m4 family" in error_class(devices.load("stm32l4r5").with_texts(kernels="plain-c"))
    assert "no lx7 was measured" in error_class(devices.load("esp32-s3"))


def test_the_report_prints_every_row_and_json_is_one_object(report: dict) -> None:
    text = validate.render(report)
    assert text.count("stm32l4r5") > 40
    assert "leave_one_task_out" in text
    assert json.loads(json.dumps(report))["summary"]["n_latency_rows"] == 67


def test_the_command_runs_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['qtrain'] = None\n"
        "from hwmodel.__main__ import main; sys.exit(main(['validate', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {"summary", "latency", "energy", "passes"}
