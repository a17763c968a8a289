"""A small share of benchmarks/fuzz.py: nearly right inputs are taken, or refused in one line that names the file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(60)
def test_a_few_hundred_inputs() -> None:
    command = [sys.executable, ROOT / "benchmarks" / "fuzz.py", "--seed", "1", "--scale", "0.015"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["inputs"] > 400
    assert not report["faults"], [kind["faults"] for kind in report["kinds"].values()]
    assert not report["memory_fault"]
    for name, kind in report["kinds"].items():
        assert kind["refused"] > 0, name  # the inputs are spoiled enough to matter ...
    assert sum(kind["taken"] for kind in report["kinds"].values()) > 50  # ... and near enough to pass the first checks
