"""Variants that take turns, each in a process of its own with the allocator, caches and memory peak it would have
alone: whatever else the machine does meets all of them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


class Meter:
    """The worker's side: waits for a number of steps on stdin, answers with what they took."""

    def __init__(self) -> None:
        self.resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        self.wall = self.cpu = 0.0
        self.faults = 0

    def wait(self) -> int:
        """Steps asked for; 0 when there will be no more. Starts the clocks."""
        line = sys.stdin.readline()
        self.faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return int(line or 0)

    def answer(self, **more: object) -> None:
        """Seconds, page faults and peak memory since `wait`, with anything else worth saying."""
        taken = {"wall_s": time.perf_counter() - self.wall, "cpu_s": time.process_time() - self.cpu}
        usage = resource.getrusage(resource.RUSAGE_SELF)
        taken |= {"faults": usage.ru_minflt - self.faults, "growth_bytes": usage.ru_maxrss * 1024 - self.resident}
        print(json.dumps(taken | more), flush=True)


def serve(step: Callable[[], object], settle: Callable[[], object] | None = None) -> None:
    """Run as many steps as each line on stdin says; `settle` waits for what is still under way."""
    meter = Meter()
    while n := meter.wait():
        for _ in range(n):
            step()
        if settle is not None:
            settle()
        meter.answer()


class Worker:
    """The other side: a script called with --worker and `arguments`."""

    def __init__(self, script: str, *arguments: str) -> None:
        command = [sys.executable, str(Path(script).resolve()), "--worker", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def steps(self, n: int) -> dict:
        """Let it run n steps; returns its answer."""
        assert self.process.stdin
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """There will be no more steps; what it still has to say can be had by `answer`."""
        assert self.process.stdin
        self.process.stdin.close()

    def close(self) -> None:
        """Let it end by itself."""
        self.end()
        self.process.wait()
