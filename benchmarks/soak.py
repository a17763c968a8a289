"""Watch one long `qtrain simulate` from outside: memory, open files, threads and processor time per step over an hour.

    python benchmarks/soak.py [--minutes 62] [--folder DIR] [-- OPTIONS OF simulate]

Without options of its own: ResNet-20 on CIFAR-10 at 8 bits, filtered, pruned, augmented, a checkpoint every 100 steps.
Samples /proc every 10 s; after the minutes are over it sends SIGTERM, as a machine that shuts down does, and expects
a checkpoint to be kept. Slopes are Theil's (the median of all pairwise slopes, with its 95 % interval), since a shared
machine's outliers would carry least squares away; the first tenth is left out as warming up. Processor time is
compared instead of wall time for the same reason. Prints one JSON object; the samples stay in DIR/samples.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from scipy import stats

JOB = ["--model", "resnet20", "--data", "cifar10", "--bits", "8", "--augment", "--filter-rate", "0.5", "--prune",
       "channel", "--prune-keep", "0.3", "--batch-size", "64", "--steps", "16000", "--checkpoint-every", "100",
       "--threads", "1"]  # fmt: skip
SAMPLE_S, POLL_S = 10.0, 0.5
WARM_UP = 0.1
COLUMNS = ("time_s", "rss_bytes", "files", "threads", "cpu_s", "step")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def sample(pid: int, started: float, step: int) -> dict[str, float]:
    """One look at a process; raises OSError if it has ended."""
    proc = Path(f"/proc/{pid}")
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    resident_pages = int((proc / "statm").read_text().split()[1])
    return {
        "time_s": time.monotonic() - started,
        "rss_bytes": resident_pages * os.sysconf("SC_PAGE_SIZE"),
        "files": len(list((proc / "fd").iterdir())),
        "threads": int(fields[17]),
        "cpu_s": (int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        "step": step,
    }


def last_step(metrics: Path) -> int:
    """The step of the newest whole row of metrics; 0 before there is one."""
    if not metrics.exists():
        return 0
    rows = metrics.read_bytes().split(b"\n")[:-1]
    return int(json.loads(rows[-1])["step"]) if rows else 0


def watch(process: subprocess.Popen[str], run: Path, seconds: float) -> tuple[list[dict[str, float]], ...]:
    """(samples at even intervals, samples at new rows of metrics) until the time is over or the process ends."""
    started = time.monotonic()
    even: list[dict[str, float]] = []
    rows: list[dict[str, float]] = []
    while process.poll() is None and (now := time.monotonic() - started) < seconds:
        step = last_step(run / "metrics.jsonl")
        if step and (not rows or step > rows[-1]["step"]):
            rows.append(sample(process.pid, started, step))
        if not even or now - even[-1]["time_s"] >= SAMPLE_S:
            even.append(sample(process.pid, started, step))
        time.sleep(POLL_S)
    return even, rows


def slope(points: list[tuple[float, float]]) -> list[float]:
    """[slope, lower, upper] at 95 %."""
    found = stats.theilslopes([y for _, y in points], [x for x, _ in points], 0.95)
    return [float(found.slope), float(found.low_slope), float(found.high_slope)]


def summarize(even: list[dict[str, float]], rows: list[dict[str, float]]) -> dict[str, Any]:
    """What the samples say; `cpu_s_per_step` lists the medians of the first and the last quarter too."""
    late = even[int(WARM_UP * len(even)) :]
    steps = [
        (b["time_s"] / 3600, (b["cpu_s"] - a["cpu_s"]) / (b["step"] - a["step"]))
        for a, b in itertools.pairwise(rows)
        if a["time_s"] >= late[0]["time_s"]
    ]
    quarter = max(1, len(steps) // 4)
    values = [value for _, value in steps]
    return {
        "minutes": even[-1]["time_s"] / 60,
        "samples": len(even),
        "steps": rows[-1]["step"],
        "rss_mib": {"after_warm_up": late[0]["rss_bytes"] / 2**20, "end": late[-1]["rss_bytes"] / 2**20,
                    "peak": max(s["rss_bytes"] for s in even) / 2**20},
        "rss_mib_per_h": slope([(s["time_s"] / 3600, s["rss_bytes"] / 2**20) for s in late]),
        "files": sorted({int(s["files"]) for s in late}),
        "threads": sorted({int(s["threads"]) for s in late}),
        "cpu_s_per_step": {"first_quarter": sorted(values[:quarter])[quarter // 2],
                           "last_quarter": sorted(values[-quarter:])[quarter // 2]},
        "cpu_s_per_step_per_h": slope(steps),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=62.0)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("options", nargs="*", help="options of simulate, after --; added to the job's own")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    run = folder / "run"
    command = [sys.executable, "-m", "cli", "simulate", "--json", *JOB, *given.options, "--out", str(run)]
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, text=True)
        even, rows = watch(process, run, 60 * given.minutes)
        process.send_signal(signal.SIGTERM)
        code = process.wait(600)
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(even)
    last_line = (folder / "errors.txt").read_text().strip().splitlines()[-1:]
    print(json.dumps({**summarize(even, rows), "exit_status": code, "last_line": last_line}))


if __name__ == "__main__":
    main()
