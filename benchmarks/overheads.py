"""What surrounds the training steps: recording the trace, pricing a run, starting the command line.

    python benchmarks/overheads.py [--rounds 15] [--model resnet20]

Processor time. Recording: steps with and without it take turns in one process; medians and the ratio of pairs.
Pricing: a run's whole trace on N_DEVICES devices, loaded from their files. Commands: whole processes, the best of five.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from variants import our_network

N_DEVICES = 20
COMMANDS = {
    "qtrain --help": ["--help"],
    "qtrain estimate": ["estimate", "--model", "resnet20", "--device", "stm32f746", "--bits", "8"],
}


def recording(model: str, rounds: int) -> str:
    """A step with and without its trace."""
    import torch

    torch.set_num_threads(1)
    net, step = our_network("compiled", model, 64)
    calls, record = [], net._record
    taken: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(rounds + 2):
        for name in taken:
            net._record = record if name == "with" else lambda *_: calls.append(None)
            started = time.process_time()
            step()
            if number >= 2:  # the first two warm up
                taken[name].append(time.process_time() - started)
    n_calls = len(calls) // (rounds + 2)
    started = time.process_time()
    for _ in range(1000):
        record("loss", "forward", "main", 64)
    each_s = (time.process_time() - started) / 1000
    step_s = statistics.median(taken["with"])
    ratio = statistics.median(a / b for a, b in zip(taken["with"], taken["without"], strict=True))
    return (
        f"{n_calls} records of {1e6 * each_s:.2f} us a step of {1e3 * step_s:.0f} ms: {n_calls * each_s / step_s:.3%}; "
        f"steps with over steps without: {ratio:.3f}"
    )


def pricing(model: str) -> str:
    """A filtered and pruned run's whole trace on N_DEVICES devices."""
    from hwmodel import devices
    from hwmodel import pricing as prices

    net, step = our_network("compiled", model, 64)
    for _ in range(3):
        step()
    schedule = net.schedule(momentum=True, weight_decay=True)
    trace = net.trace(schedule, 3, 192)
    names = devices.names()[:N_DEVICES]

    bills: list[Any] = []

    def price_all() -> None:
        bills[:] = [prices.price(trace, devices.load(name), schedule=schedule) for name in names]

    first_s, told_s, again_s = map(seconds, (price_all, lambda: [bill.to_json() for bill in bills], price_all))
    return f"{len(names)} devices: {first_s:.3f} s, again {again_s:.3f} s; what would make them fit {told_s:.3f} s"


def seconds(function: Callable[[], Any]) -> float:
    """Processor time of a call."""
    started = time.process_time()
    function()
    return time.process_time() - started


def command(arguments: list[str]) -> str:
    """Processor and wall time of one command, the best of five."""
    took = []
    for _ in range(5):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli", *arguments], check=True, stdout=subprocess.DEVNULL)
        wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall_s))
    return f"{min(t[0] for t in took):.2f} s of processor time, {min(t[1] for t in took):.2f} s of wall time"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", default="resnet20")
    given = parser.parse_args()
    for name, arguments in COMMANDS.items():
        print(f"{name}: {command(arguments)}", flush=True)
    print(f"pricing a run of {given.model}: {pricing(given.model)}", flush=True)
    print(f"recording the trace of {given.model}: {recording(given.model, given.rounds)}")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
