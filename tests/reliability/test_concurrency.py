"""Processes at the same time: on one run folder the second refuses politely, on one store nothing is lost."""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from qtrain.experiment import Experiment
from qtrain.store import Run, find_runs, finished_runs

ROOT = Path(__file__).parent.parent.parent
SIMULATE = [sys.executable, "-m", "cli", "simulate", "--json"]


def second(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*SIMULATE, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


def test_the_second_process_refuses(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Run.create(folder, Experiment()) as run:
        run.append_metrics({"step": 1})
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        for arguments in (("--out", str(folder)), ("--resume", str(folder))):
            done = second(*arguments)
            assert done.returncode == 2
            assert done.stdout == ""
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"error: {folder} is in use by process {os.getpid()}: ")
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        run.append_metrics({"step": 2})  # the first goes on
        assert [row["step"] for row in run.metrics()] == [1, 2]


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    """The lock is the system's, not the file's: what a killed process left is no obstacle."""
    (tmp_path / "run").mkdir()
    holder = (
        "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", holder, tmp_path / "run" / "lock"], check=False)
    with Run.create(tmp_path / "run", Experiment()), (tmp_path / "run" / "lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            raise AssertionError("the lock is not held")
        except BlockingIOError:
            pass


N_WRITERS, N_RUNS = 8, 6
WRITER = """
import sys, time
import numpy as np
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.store import Run
store, writer, n_runs, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
time.sleep(max(0.0, start - time.time()))
for seed in range(n_runs):
    experiment = Experiment(seed=seed)
    while True:
        try:
            with Run.create(f"{store}/{experiment.id}", experiment) as run:
                if run.result() is None:
                    for step in range(1, 4):
                        run.append_metrics({"step": step, "writer": writer})
                        run.save_checkpoint(step, {"w": np.full(1000, writer, np.float32)}, {})
                    run.save_weights({"w": np.full(1000, writer, np.float32)})
                    run.finish({"writer": writer})
            break
        except QtrainError as error:
            assert "is in use by " in str(error), error
            time.sleep(0.05)
"""


def test_eight_writers_on_one_store_lose_nothing(tmp_path: Path) -> None:
    """All eight want all six runs: each is computed by one of them, from its first byte to its last."""
    start = str(time.time() + 1.5)  # when all of them have been imported
    arguments = [[str(tmp_path), str(writer), str(N_RUNS), start] for writer in range(N_WRITERS)]
    processes = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WRITER, *words], cwd=ROOT, stderr=subprocess.PIPE)
        for words in arguments
    ]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    found = finished_runs(tmp_path)
    assert found.keys() == {Experiment(seed=seed).id for seed in range(N_RUNS)}
    assert sorted(found.values()) == find_runs(tmp_path)
    for path in found.values():
        run = Run.open(path)  # every read below is checked against its checksum
        writer = run.result()["writer"]
        assert run.metrics() == [{"step": step, "writer": writer} for step in (1, 2, 3)]
        assert set(run.weights()["w"]) == {writer}
