"""Kills, full disks and damaged files: the last good state is there, and what is wrong is said in one line."""

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.store import Run, read_tensors, write_tensors


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


def tensors_at(step):
    return {"w": np.full((4, 8), step, dtype=np.float32)}


def save(run, step):
    run.append_metrics({"step": step})
    run.save_checkpoint(step, tensors_at(step), {"rounds": step * 3})


def sound_step(path):
    """The step a run would go on from, after checking that its checkpoint is whole; None if there is none."""
    found = Run.open(path).load_checkpoint()
    if found is None:
        return None
    step, tensors, state = found
    assert (tensors["w"] == tensors_at(step)["w"]).all()
    assert state == {"rounds": step * 3}
    return step


def fail_at(monkeypatch, nth, error):
    """The nth call from now on that changes the disk does half its work, or none, and raises `error`."""
    calls = iter(range(1, 10**6))

    def guard(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            if next(calls) == nth:
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                raise error
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "replace", "unlink", "truncate"):
        guard(name)


@pytest.mark.parametrize("n_before", [0, 1, 3])
@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "No space left on device")])
def test_wherever_saving_stops_the_checkpoint_before_or_the_new_one_is_sound(tmp_path, error, n_before):
    for nth in range(1, 30):
        path = tmp_path / str(nth)
        with Run.create(path, Experiment()) as run:
            for step in range(1, n_before + 1):
                save(run, step)
            with pytest.MonkeyPatch.context() as patch:
                fail_at(patch, nth, error)
                try:
                    save(run, n_before + 1)
                except QtrainError as told:
                    assert "No space left" in str(told)
                    assert "\n" not in str(told)
                except Killed:
                    pass
                else:
                    break
        assert sound_step(path) in (n_before or None, n_before + 1)
        with Run.create(path, Experiment()) as run:  # it goes on where it stopped
            run.truncate_metrics(n_before)
            assert [row["step"] for row in run.metrics()] == list(range(1, n_before + 1))
            save(run, n_before + 1)
        assert sound_step(path) == n_before + 1
        assert len(list((path / "checkpoint").iterdir())) == 2 * min(n_before + 1, 2)
    assert nth > 8  # each of the writes, syncs and renames was struck


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_folder_that_takes_no_files_is_refused_in_one_line(tmp_path, monkeypatch, code):
    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(QtrainError, match=os.strerror(code)) as told:
        Run.create(tmp_path / "run", Experiment())
    assert str(tmp_path / "run") in str(told.value)


def test_a_folder_beneath_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(QtrainError, match="cannot create"):
            Run.create(path, Experiment())
    for action in (Run.open, lambda path: Run.create(path, Experiment()), read_tensors):
        with pytest.raises(QtrainError, match="File name too long"):
            action(tmp_path / ("n" * 300))


def damaged(content, kind):
    if kind == "truncated":
        return content[: len(content) // 2]
    if kind == "empty":
        return b""
    flipped = bytearray(content)
    flipped[int(len(content) * float(kind))] ^= 0x10
    return bytes(flipped)


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("kind", ["truncated", "empty", "0", "0.3", "0.6", "0.99"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_two_to_an_error(tmp_path, suffix, kind):
    with Run.create(tmp_path / "run", Experiment()) as run:
        save(run, 10)
        save(run, 20)
    paths = [tmp_path / "run" / "checkpoint" / f"{step}.{suffix}" for step in (20, 10)]
    paths[0].write_bytes(damaged(paths[0].read_bytes(), kind))
    with pytest.warns(UserWarning, match=r"20\.\w+: .*; going on from step 10"):
        assert sound_step(tmp_path / "run") == 10
    paths[1].write_bytes(damaged(paths[1].read_bytes(), kind))
    with pytest.raises(QtrainError, match="no sound checkpoint is left") as told:
        sound_step(tmp_path / "run")
    assert "\n" not in str(told.value)


def test_a_checkpoint_of_another_format_or_experiment_is_named_as_such(tmp_path, monkeypatch):
    with Run.create(tmp_path / "run", Experiment()) as run, monkeypatch.context() as patch:
        patch.setattr("qtrain.store.checkpoint.FORMAT", 99)
        save(run, 1)
    with pytest.raises(QtrainError, match="checkpoint format 99, this version reads 1"):
        sound_step(tmp_path / "run")
    with Run.create(tmp_path / "other", Experiment(seed=1)) as run:
        save(run, 1)
    (tmp_path / "run" / "experiment.toml").write_text(Experiment(seed=2).to_toml())
    for name in ("1.json", "1.safetensors"):
        (tmp_path / "run" / "checkpoint" / name).write_bytes((tmp_path / "other" / "checkpoint" / name).read_bytes())
    with pytest.raises(QtrainError, match="belongs to another experiment"):
        sound_step(tmp_path / "run")


READS = {
    "result.json": Run.result,
    "trace.json": Run.trace,
    "weights.safetensors": Run.weights,
    "metrics.jsonl": Run.metrics,
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("kind", ["truncated", "empty", "0.5"])
def test_a_damaged_file_of_a_finished_run_is_noticed(tmp_path, name, kind):
    with Run.create(tmp_path, Experiment()) as run:
        run.append_metrics({"step": 1, "loss": 1.25})
        run.save_weights(tensors_at(1))
        run.save_trace({"ops": [1]})
        run.finish({"accuracy": 0.25})
        READS[name](run)
        path = tmp_path / name
        path.write_bytes(damaged(path.read_bytes(), kind))
        with pytest.raises(QtrainError, match=f"{name}: damaged"):
            READS[name](run)


def test_the_checksums_are_those_of_sha256sum(tmp_path):
    with Run.create(tmp_path, Experiment()) as run:
        run.save_weights(tensors_at(1))
        run.finish({"accuracy": 1})
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == "weights.safetensors: OK\nresult.json: OK\n"


def test_huge_deep_and_special_files_are_refused_without_reading_them(tmp_path):
    run = Run.create(tmp_path, Experiment())
    path = tmp_path / "trace.json"
    with path.open("wb") as file:
        file.truncate(5 << 30)  # a sparse file: 5 GB that take no disk
    with pytest.raises(QtrainError, match="5368709120 bytes, more than"):
        run.trace()
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(QtrainError, match="not valid JSON"):
        run.trace()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(QtrainError, match="not a file"):
        run.trace()
    path.unlink()
    with pytest.raises(QtrainError, match="No such file"):
        run.trace()


def test_files_are_not_written_through_links(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = Run.create(tmp_path / "run", Experiment())
    for name in ("metrics.jsonl", "trace.json", "trace.json.tmp"):
        (run.path / name).symlink_to(victim)
    for write in (lambda: run.append_metrics({"step": 1}), lambda: run.save_trace({})):
        with pytest.raises(QtrainError):
            write()
    assert victim.read_text() == "precious"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bytes_are_tensors_or_one_line_naming_the_file(tmp_path, data):
    path = tmp_path / "w.safetensors"
    write_tensors(path, tensors_at(1) | {"b": np.zeros(3, dtype=np.int32)})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        found = read_tensors(path)
    except QtrainError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert all(isinstance(array, np.ndarray) for array in found.values())


def test_equal_tensors_make_equal_files_in_any_order(tmp_path):
    arrays = {name: np.arange(4, dtype=kind) for name, kind in [("b", "f4"), ("a", "f4"), ("c", "f8"), ("d", "i1")]}
    write_tensors(tmp_path / "1", arrays)
    write_tensors(tmp_path / "2", dict(reversed(arrays.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


SAVE_FOR_EVER = """
import sys
from itertools import count
import numpy as np
from qtrain.experiment import Experiment
from qtrain.store import Run
run = Run.create(sys.argv[1], Experiment())
found = run.load_checkpoint()
step = found[0] if found else 0
run.truncate_metrics(step)
for step in count(step + 1):
    run.append_metrics({"step": step})
    run.save_checkpoint(step, {"w": np.full((4, 8), step, np.float32), "pad": np.zeros(10**6)}, {"rounds": step * 3})
    print(step, flush=True)
"""


def test_a_process_killed_while_it_saves_loses_at_most_what_it_had_not_confirmed(tmp_path):
    rng = np.random.default_rng(0)
    reached = 0
    for _ in range(4):
        command = [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
            confirmed = [int(line) for line in process.stdout.read().splitlines()]
        step = sound_step(tmp_path)
        assert step >= max(confirmed, default=reached)
        assert step > reached
        steps = [row["step"] for row in Run.open(tmp_path).metrics()]
        assert steps[:step] == list(range(1, step + 1))
        reached = step
