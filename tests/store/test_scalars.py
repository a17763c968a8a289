"""TensorBoard's event files hold what metrics.jsonl holds, once, also after a resume."""

import json
import signal
import struct
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from qtrain.experiment import Experiment
from qtrain.simulate import simulate_experiment
from qtrain.store.scalars import TENSORBOARD
from qtrain.training import loop

SMALL = {"train.steps": 12, "train.batch_size": 16, "filter.kind": "none", "run.tensorboard": True}


def shown(run: Path) -> dict[tuple[int, str], float]:
    """(step, name) -> value as TensorBoard shows them: a session's start voids all events before it.

    An event file is a row of records: length (8 bytes), its checksum (4), an Event, its checksum (4).
    """
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs the extra tensorboard")
    found = {}
    for path in sorted((run / TENSORBOARD).iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
            at += 12 + length + 4
            if event.session_log.status == event_pb2.SessionLog.START:
                found = {key: value for key, value in found.items() if key[0] < event.step}
            for value in event.summary.value:
                assert (event.step, value.tag) not in found
                found[(event.step, value.tag)] = value.simple_value
    return found


def rows(run: Path) -> dict[tuple[int, str], float]:
    """The same of metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {(r["step"], k): v for r in lines for k, v in r.items() if k != "step" and v is not None}


def test_events_are_the_metrics_also_after_a_resume(tmp_path, monkeypatch):
    experiment = Experiment().with_options({**SMALL, "run.out": str(tmp_path)})
    step = loop.train_step

    def interrupted(job, batch, rate):
        if batch.step == 7:
            signal.raise_signal(signal.SIGINT)
        return step(job, batch, rate)

    monkeypatch.setattr(loop, "train_step", interrupted)
    with pytest.raises(loop.Interrupted):
        simulate_experiment(experiment)
    monkeypatch.setattr(loop, "train_step", step)
    for path in (tmp_path / TENSORBOARD).iterdir():  # as if a kill had lost it: no two files begin in one second
        path.rename(path.with_name("events.out.tfevents.0"))
    simulate_experiment(experiment)
    assert len(list((tmp_path / TENSORBOARD).iterdir())) == 2
    assert {step for step, _ in rows(tmp_path)} == set(range(1, 13))
    assert shown(tmp_path) == pytest.approx(rows(tmp_path), rel=1e-6)  # float32 in the events


def test_without_the_extra_the_error_is_one_line_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    done = CliRunner().invoke(cli.main, ["simulate", "--tensorboard", "--steps", "2", "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --tensorboard needs tensorboardX")
    assert done.stderr.count("\n") == 1
