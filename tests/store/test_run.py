"""A run's folder: what is written is read back, one process writes, another's folder is refused."""

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.files import to_json
from qtrain.store import Run, find_runs, finished_runs
from qtrain.store.environment import commit

TENSORS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "scalar": np.array(3.5, dtype=np.float64),
    "empty": np.zeros((0, 4), dtype=np.int8),
}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and (a[k] == b[k]).all() for k in a
    )


def finished(path, experiment=None, **result):
    with Run.create(path, experiment or Experiment()) as run:
        run.append_metrics({"step": 1, "loss": 2.0})
        run.save_trace({"ops": []})
        run.save_weights(TENSORS)
        run.finish(result)


def test_what_is_written_is_read_back_without_a_lock(tmp_path):
    experiment = Experiment(seed=3)
    with Run.create(tmp_path / "a" / "run", experiment) as run:
        assert run.result() is None
        assert run.load_checkpoint() is None
        state = {"step": 7, "threshold": float("inf"), "seen": [1, 2], "count": np.int64(5)}
        run.save_checkpoint(7, TENSORS, state)
        run.append_metrics({"step": 1, "loss": np.float32(0.5), "precision": float("nan")})
        run.save_weights(TENSORS)
        run.save_trace({"ops": [[1, 2]]})
        run.finish({"accuracy": 0.5, "loss": float("inf")})
        read = Run.open(tmp_path / "a" / "run")
        assert read.experiment == experiment
        assert read.id == experiment.id
        step, tensors, state_read = read.load_checkpoint()
        assert (step, state_read) == (7, state)
        assert same(tensors, TENSORS)
        assert same(read.weights(), TENSORS)
        assert read.metrics() == [{"step": 1, "loss": 0.5, "precision": None}]
        assert read.trace() == {"ops": [[1, 2]]}
        assert read.result() == {"accuracy": 0.5, "loss": None}  # JSON has no infinity


def test_what_is_open_for_reading_is_not_written(tmp_path):
    finished(tmp_path / "run")
    with pytest.raises(QtrainError, match="reading only"):
        Run.open(tmp_path / "run").append_metrics({"step": 2})


def test_the_environment_tells_versions_platform_and_command_without_importing_torch(tmp_path):
    with Run.create(tmp_path / "run", Experiment()) as run:
        found = run.environment()
    assert found["versions"]["numpy"] == np.__version__
    assert found["n_cpus"] == os.cpu_count()
    assert found["command"] == sys.argv
    code = "import sys, qtrain.store, qtrain.experiment; print({'torch', 'brevitas', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_the_commit_is_that_of_the_source_tree_and_says_if_files_differ(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) == ""
    git("init")
    assert commit(tmp_path) == ""
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    assert commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == git("rev-parse", "HEAD") + "+changes"


def test_a_folder_of_another_experiment_or_of_other_files_is_refused(tmp_path):
    finished(tmp_path / "run")
    with pytest.raises(QtrainError, match=r"its numbers.weight_bits is 8, not 4"):
        Run.create(tmp_path / "run", Experiment().bits(4))
    with pytest.raises(QtrainError, match="its layers differ"):
        Run.create(tmp_path / "run", Experiment().with_layer("a", weight_bits=4))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(QtrainError, match=r"not empty and not a run \(thesis.tex\)"):
        Run.create(tmp_path / "mine", Experiment())
    with pytest.raises(QtrainError, match="not a run"):
        Run.open(tmp_path / "mine")


def test_the_same_experiment_is_taken_up_again_with_other_devices(tmp_path):
    finished(tmp_path / "run", accuracy=1.0)
    other = Experiment().with_options({"run.devices": ["eyeriss"], "run.threads": 2})
    with Run.create(tmp_path / "run", other) as run:
        assert run.result() == {"accuracy": 1.0}
        run.save_checkpoint(1, TENSORS, {})
        run.clear()
        assert run.result() is None
        assert run.load_checkpoint() is None
        assert run.metrics() == []
    assert Run.open(tmp_path / "run").experiment == other


def test_metrics_after_a_step_and_a_half_line_are_dropped(tmp_path):
    with Run.create(tmp_path / "run", Experiment()) as run:
        for step in range(5):
            run.append_metrics({"step": step})
        path = run.path / "metrics.jsonl"
        with path.open("ab") as file:
            file.write(b'{"step": 5, "lo')
        assert run.metrics() == [{"step": step} for step in range(5)]
        run.append_metrics({"step": 6})
        assert run.metrics()[-2:] == [{"step": 4}, {"step": 6}]
        run.truncate_metrics(2)
        assert path.read_bytes() == b'{"step": 0}\n{"step": 1}\n{"step": 2}\n'
        path.write_bytes(b'{"step": 0}\nnot json\n[1]\n')
        with pytest.raises(QtrainError, match="line 2: not valid JSON"):
            run.metrics()


def test_a_half_line_of_any_length_is_dropped_at_once(tmp_path):
    with Run.create(tmp_path / "run", Experiment()) as run:
        run.append_metrics({"step": 0})
        with (run.path / "metrics.jsonl").open("ab") as file:
            file.write(b"x" * 200_000)
        run.append_metrics({"step": 1})
        assert run.metrics() == [{"step": 0}, {"step": 1}]


HOLD = """
import sys
from qtrain.experiment import Experiment
from qtrain.store import Run
run = Run.create(sys.argv[1], Experiment())
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_has_died(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(QtrainError, match=f"in use by process {holder.pid}"):
            Run.create(tmp_path / "run", Experiment())
        with pytest.raises(QtrainError, match="in use by"):
            Run.open(tmp_path / "run", writable=True)
        assert Run.open(tmp_path / "run").experiment == Experiment()
        holder.kill()
    Run.create(tmp_path / "run", Experiment()).close()


def test_a_refused_folder_is_left_unlocked(tmp_path):
    finished(tmp_path / "run")
    with pytest.raises(QtrainError, match="another experiment"):
        Run.create(tmp_path / "run", Experiment(seed=9))
    Run.create(tmp_path / "run", Experiment()).close()


def test_runs_are_found_by_their_folders_and_damaged_ones_reported(tmp_path):
    for seed in range(3):
        finished(tmp_path / "sweep" / f"s{seed}", Experiment(seed=seed), accuracy=seed / 4)
    Run.create(tmp_path / "sweep" / "unfinished", Experiment(seed=9)).close()
    (tmp_path / "link").symlink_to(tmp_path / "sweep")
    paths = find_runs(tmp_path)
    assert [p.name for p in paths] == ["s0", "s1", "s2", "unfinished"]
    assert find_runs(paths[0]) == [paths[0]]
    assert finished_runs(tmp_path) == {Experiment(seed=s).id: paths[s] for s in range(3)}
    (paths[1] / "experiment.toml").write_text("seed = 'x'")
    with pytest.warns(UserWarning, match="seed"):
        assert set(finished_runs(tmp_path).values()) == {paths[0], paths[2]}
    with pytest.raises(QtrainError, match="no such folder"):
        find_runs(tmp_path / "nowhere")


def test_code_that_changed_since_is_told(tmp_path, monkeypatch):
    with Run.create(tmp_path / "run", Experiment()) as run:
        run.save_checkpoint(1, {}, {})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run.load_checkpoint()
        monkeypatch.setattr("qtrain.store.run.code_version", lambda: "000000000000")
        with pytest.warns(UserWarning, match="another version of qtrain's code"):
            run.load_checkpoint()


def test_json_is_strict_and_knows_numpy():
    value = {1: np.float64("nan"), "a": (np.int8(3), np.bool_(True), [None, -0.5])}
    assert json.loads(to_json(value)) == {"1": None, "a": [3, True, [None, -0.5]]}
    with pytest.raises(TypeError, match="no JSON for set"):
        to_json({"a": {1}})
