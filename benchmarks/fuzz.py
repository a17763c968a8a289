"""Feed qtrain inputs that are nearly right, by the thousand, in this process; report what it does with them.

    python benchmarks/fuzz.py [--seed 0] [--scale 1.0] [--only KIND]

An input must be taken, or refused in one line that names the file (command lines: by click, or as "error: ..."). Any
other exception, more than 5 s, or more than 2 GiB in all is a fault. Prints one JSON object; exit code 1 on a fault.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from fuzz_targets import TARGETS, Target

from hwmodel.errors import HwmodelError
from qtrain.errors import QtrainError

MAX_SECONDS = 5.0
MAX_BYTES = 2 << 30
SHOWN_FAULTS = 20


class Hang(BaseException):
    """An input took longer than MAX_SECONDS."""


def refusal_fault(message: str, named: str) -> str:
    """What is wrong with a refusal: "" if it is one printable line that names the file."""
    if not message.strip():
        return "an empty message"
    if "\n" in message or len(message) > 2000:
        return f"not one line: {message[:200]!r}"
    return "" if named in message else f"does not name {named}: {message[:200]}"


def outcome(target: Target, rng: Random, folder: Path) -> tuple[str, str]:
    """("taken" | "refused" | "fault", what is wrong) for one input."""
    try:
        target.run(rng, folder)
    except (QtrainError, HwmodelError) as error:
        wrong = refusal_fault(str(error), target.named)
        return ("fault", wrong) if wrong else ("refused", "")
    except Hang:
        return "fault", f"more than {MAX_SECONDS} s"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return "fault", f"{type(error).__name__}: {str(error)[:150]!r} at {Path(where.filename).name}:{where.lineno}"
    return "taken", ""


def fuzz(target: Target, n: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run `n` inputs of one kind, each from a generator of its own so that any can be repeated alone."""
    counts = {"inputs": n, "taken": 0, "refused": 0, "fault": 0}
    slowest_s, faults = 0.0, []
    for i in range(n):
        signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS)
        started = time.perf_counter()
        what, wrong = outcome(target, Random(f"{seed} {target.name} {i}"), folder)
        signal.setitimer(signal.ITIMER_REAL, 0)
        slowest_s = max(slowest_s, time.perf_counter() - started)
        counts[what] += 1
        if wrong:
            faults.append(f"{i}: {wrong}")
    return {**counts, "slowest_s": round(slowest_s, 3), "faults": faults[:SHOWN_FAULTS]}


def run(seed: int, scale: float, only: str = "", folder: Path | None = None) -> dict[str, Any]:
    """Every kind of input, `scale` times its usual number."""

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    warnings.simplefilter("ignore")
    kinds: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for target in TARGETS:
            if only in ("", target.name):
                own = (folder or Path(temporary)) / target.name
                own.mkdir(parents=True)
                target.prepare(own)
                kinds[target.name] = fuzz(target, max(1, round(scale * target.n_inputs)), seed, own)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seed": seed,
        "inputs": sum(kind["inputs"] for kind in kinds.values()),
        "faults": sum(kind["fault"] for kind in kinds.values()),
        "slowest_s": max(kind["slowest_s"] for kind in kinds.values()),
        "peak_memory_mib": round(peak_bytes / 2**20),
        "memory_fault": peak_bytes > MAX_BYTES,
        "kinds": kinds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="", choices=["", *(target.name for target in TARGETS)])
    given = parser.parse_args()
    report = run(given.seed, given.scale, given.only)
    print(json.dumps(report, indent=1))
    sys.exit(bool(report["faults"] or report["memory_fault"]))


if __name__ == "__main__":
    main()
