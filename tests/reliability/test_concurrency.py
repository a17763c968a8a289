"""Two processes on one run folder: the second refuses politely and harms nothing."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from qtrain.experiment import Experiment
from qtrain.store import Run

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
