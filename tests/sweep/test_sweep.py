"""Sweeps in real worker processes: computed once, reused, failing alone, continued after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.store import find_runs
from qtrain.sweep import run_trials
from qtrain.sweep.worker import PROGRESS

ROOT = Path(__file__).parent.parent.parent
TINY = ["--steps", "6", "--batch-size", "16"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A grid of two settings over two seeds: its command, its JSON and its folder."""
    out = tmp_path_factory.mktemp("sweep")
    arguments = ["compare", "--bits", "4,8", "--seeds", "2", *TINY, "--out", str(out), "--json"]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 0, done.output
    return arguments, json.loads(done.stdout), out


def test_every_trial_is_computed_once_and_then_reused(swept):
    arguments, first, out = swept
    assert (first["computed"], first["reused"], first["failed"]) == (4, 0, [])
    assert [row["values"] for row in first["rows"]] == [{"bits": 4}, {"bits": 8}]
    assert [row["seeds"] for row in first["rows"]] == [[0, 1], [0, 1]]
    assert {path.name for path in find_runs(out)} == {
        Experiment(seed=seed).with_options({"numbers.bits": bits, "train.steps": 6, "train.batch_size": 16}).id
        for bits in (4, 8)
        for seed in (0, 1)
    }
    assert not list(out.glob(f"*/{PROGRESS}"))
    again = json.loads(CliRunner().invoke(cli.main, arguments).stdout)
    assert (again["computed"], again["reused"]) == (0, 4)
    assert again["rows"] == first["rows"]


def test_a_worker_computes_what_simulate_does(swept, tmp_path):
    _, first, _ = swept
    arguments = ["simulate", "--bits", "8", "--seed", "1", "--threads", "1", *TINY, "--out", str(tmp_path / "one")]
    done = CliRunner().invoke(cli.main, [*arguments, "--json"])
    alone = json.loads(done.stdout)
    there = json.loads((Path(first["rows"][1]["runs"][1]) / "result.json").read_text())
    assert {key: alone[key] for key in ("accuracy", "loss", "macs", "instances")} == {
        key: there[key] for key in ("accuracy", "loss", "macs", "instances")
    }


def test_a_trial_that_fails_or_kills_its_process_stops_no_other(swept, tmp_path, monkeypatch):
    (tmp_path / "lethal.py").write_text("import os\n\n\ndef factory():\n    os._exit(9)\n")
    monkeypatch.chdir(tmp_path)  # where a model of the user's own is looked for
    tiny = Experiment().with_options({"train.steps": 6, "train.batch_size": 16})
    lethal = tiny.with_options({"model": "lethal:factory", "input_shape": (1, 8, 8), "n_classes": 10})
    no_data = tiny.with_options({"data.name": "mnist", "data.dir": str(tmp_path)})
    new = tiny.with_options({"seed": 9})
    counts = []
    sweep = run_trials(
        [lethal, no_data, tiny, new], swept[2], n_workers=2, on_change=lambda sweep: counts.append(len(sweep.computed))
    )
    assert [path.name for path in sweep.computed] == [new.id]
    assert [path.name for path in sweep.reused] == [tiny.id]
    errors = {Path(failure["run"]).name: failure["error"] for failure in sweep.failed}
    assert errors.keys() == {lethal.id, no_data.id}
    assert "died" in errors[lethal.id]
    assert "mnist" in errors[no_data.id]
    assert "\n" not in errors[no_data.id]
    assert sorted(counts) == counts
    assert counts[0] == 0
    assert counts[-1] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_sweep_leaves_no_process_and_goes_on_where_it_was(tmp_path, number):
    command = [sys.executable, "-m", "cli", "compare", "--bits", "8", "--steps", "30000", "--checkpoint-every", "5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a background job ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("*/checkpoint/*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    lock = next(tmp_path.glob("*/lock"))
    worker = int(lock.read_text())
    assert worker != process.pid
    _wait_until_gone(worker)
    assert list(tmp_path.glob("*/checkpoint/*.json"))
    assert not list(tmp_path.glob("*/result.json"))
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "interrupted" in errors


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} outlived its sweep")


def test_an_unknown_engine_goes_to_simulate_and_is_refused_there(tmp_path):
    done = CliRunner().invoke(cli.main, ["compare", "--engine", "rya", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "run.engine" in done.stderr
    with pytest.raises(QtrainError, match="local, ray"):
        run_trials([Experiment()], tmp_path, engine="cloud")
