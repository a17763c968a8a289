"""SIGKILL at three moments of a run: it resumes, and ends with the bits of the run nobody disturbed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_killed_three_times(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "kill_anywhere.py"
    command = [sys.executable, script, "--kills", "3", "--seed", "1", "--steps", "60", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
