"""Kill a run with SIGKILL at random moments, resume it each time, and compare with the run nobody disturbed.

    python benchmarks/kill_anywhere.py [--kills 50] [--seed 0] [--steps 240] [--folder DIR]

The moments are drawn from the time the run needs, its checkpoints (one every 3 steps) included. Prints one JSON object:
kills that hit a living process, resumes that failed (must be 0), whether weights and trace are identical.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "cli", "simulate", "--json"]


def options(steps: int, folder: Path) -> list[str]:
    """A short run with filter, pruner, augmentation and frequent checkpoints."""
    return ["--steps", str(steps), "--batch-size", "16", "--augment", "--checkpoint-every", "3", "--engine", "torch",
            "--out", str(folder)]  # fmt: skip


def run_whole(arguments: list[str]) -> float:
    """Run to the end; seconds it took."""
    started = time.monotonic()
    subprocess.run([*COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def run_until_killed(arguments: list[str], after_s: float) -> bool:
    """Start a run and SIGKILL it after `after_s`; False if it ended by itself before. Raises if it failed."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    if process.returncode:
        raise RuntimeError(errors.decode())
    return False


def torture(kills: int, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Kill and resume `kills` times (starting a new run whenever one finishes) and compare each finished one."""
    generator = random.Random(seed)
    whole = folder / "whole"
    needed_s = run_whole(options(steps, whole))
    report: dict[str, Any] = {"kills": 0, "runs": 0, "failed_resumes": 0, "differing_weights": 0, "differing_traces": 0}
    while report["kills"] < kills:
        part = folder / f"part{report['runs']}"
        arguments = options(steps, part)
        while True:
            last = report["kills"] >= kills
            try:
                killed = run_until_killed(arguments, 10 * needed_s if last else generator.uniform(0.0, needed_s))
            except RuntimeError as error:
                report["failed_resumes"] += 1
                report["error"] = str(error).strip()[-300:]
                break
            report["kills"] += killed
            if not killed:
                break
            if (part / "experiment.toml").exists():
                arguments = ["--resume", str(part)]
        report["runs"] += 1
        for name, key in (("weights.safetensors", "differing_weights"), ("trace.json", "differing_traces")):
            report[key] += not same(part / name, whole / name)
    return report


def same(one: Path, other: Path) -> bool:
    """Equal content; a trace's rows may come in another order after a resume."""
    if not one.exists():
        return False
    if one.suffix != ".json":
        return one.read_bytes() == other.read_bytes()
    return canonical(one) == canonical(other)


def canonical(path: Path) -> Any:
    """A run's trace with its rows in a fixed order, layers written out."""
    record = json.loads(path.read_text())
    trace = record["trace"]
    rows = [[trace["layers"][r[0]], trace["widths"][r[1]], *r[2:]] for r in trace["rows"]]
    record["trace"] = [trace["n_steps"], trace["n_instances"], sorted(json.dumps(row, sort_keys=True) for row in rows)]
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="kill-anywhere-"))
    report = torture(given.kills, given.seed, given.steps, folder)
    print(json.dumps(report))
    sys.exit(bool(report["failed_resumes"] + report["differing_weights"] + report["differing_traces"]))


if __name__ == "__main__":
    main()
