"""Sweeps of eight workers on one store, alone and two at once: nothing is lost, damaged or computed differently.

    python benchmarks/sweeps_at_once.py [--workers 8] [--seeds 8] [--folder DIR]

A grid of 4 and 8 bits by `--seeds` seeds, 6 steps a trial. First alone; then two sweeps of the same grid start
together on an empty store, where a trial that the other sweep is computing may be refused ("in use"), never damaged;
then the same command once more, which must find every trial there. Prints one JSON object; exit status 1 on a loss.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from qtrain.store import Run, finished_runs

COMPARE = [sys.executable, "-m", "cli", "compare", "--bits", "4,8", "--steps", "6", "--batch-size", "16", "--json"]


def start(store: Path, workers: int, seeds: int) -> subprocess.Popen[str]:
    command = [*COMPARE, "--jobs", str(workers), "--seeds", str(seeds), "--out", str(store)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """computed, reused, and failed trials that were refused for another reason than the other sweep."""
    text, _ = process.communicate()
    found = json.loads(text)
    in_use = [one for one in found["failed"] if "is in use by" in one["error"]]
    return {"computed": found["computed"], "reused": found["reused"], "in_use": len(in_use),
            "failed": len(found["failed"]) - len(in_use)}  # fmt: skip


def digests(store: Path) -> dict[str, str]:
    """Run id -> digest of its weights, every file of the run read against its checksum."""
    found = {}
    for name, path in finished_runs(store).items():
        run = Run.open(path)
        run.metrics(), run.trace(), run.result(), run.weights()
        found[name] = hashlib.sha256((path / "weights.safetensors").read_bytes()).hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="sweeps-"))
    alone = finish(start(folder / "alone", given.workers, given.seeds))
    pair = [start(folder / "shared", given.workers, given.seeds) for _ in range(2)]
    together = [finish(process) for process in pair]
    again = finish(start(folder / "shared", given.workers, given.seeds))
    one, other = digests(folder / "alone"), digests(folder / "shared")
    sweeps = [alone, *together, again]
    lost = 2 * given.seeds - len(one) + 2 * given.seeds - len(other)
    report = {"trials": 2 * given.seeds, "alone": alone, "together": together, "again": again, "lost": lost,
              "differing_weights": sum(one[name] != other.get(name) for name in one)}  # fmt: skip
    print(json.dumps(report))
    sys.exit(bool(lost + report["differing_weights"] + sum(sweep["failed"] for sweep in sweeps) + again["computed"]))


if __name__ == "__main__":
    main()
