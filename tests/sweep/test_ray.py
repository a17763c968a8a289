"""Trials as ray tasks: the same results as the processes of one machine."""

import json
import sys

import pytest
from click.testing import CliRunner

import cli
from qtrain.errors import QtrainError
from qtrain.sweep.ray_engine import run_ray, train_when_free


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(QtrainError, match=r"qtrain\[ray\]"):
        run_ray([], "", lambda trial, error: None)


def test_a_repeated_trial_waits_until_the_lost_one_lets_go(monkeypatch):
    answers = ["runs/x is in use by process 7: wait", "runs/x is in use by process 7: wait", ""]
    monkeypatch.setattr("qtrain.sweep.worker.train", lambda *arguments: answers.pop(0))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert train_when_free("", "") == ""
    assert answers == []


def test_ray_gives_the_table_of_the_local_engine(tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    arguments = ["compare", "--bits", "4,8", "--steps", "6", "--batch-size", "16", "--json", "--out"]
    tables = []
    for engine in ("local", "ray"):
        done = CliRunner().invoke(cli.main, [*arguments, str(tmp_path / engine), "--engine", engine])
        assert done.exit_code == 0, done.output
        rows = json.loads(done.stdout)["rows"]
        tables.append([{key: value for key, value in row.items() if key != "runs"} for row in rows])
    assert tables[0] == tables[1]
