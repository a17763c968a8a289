"""Where one compiled training step's processor time goes: PyTorch's convolutions, each kernel, and the rest.

    python benchmarks/profile_step.py [--model resnet20] [--batch 64] [--keep 1.0] [--steps 15]

One thread. Convolutions and kernels are timed from outside, call by call; the rest is Python, allocation and PyTorch's
small operations, and the timing itself (some 0.3 us a call). Medians over the steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter, defaultdict
from typing import Any

import torch
import torch.nn.functional as F
from variants import our_network

from qtrain import engine
from qtrain.pruners.channel import ChannelPruning


class Timed:
    """Calls a function and adds its time to `taken`."""

    def __init__(self, function: Any, name: str, taken: Counter[str], calls: Counter[str]) -> None:
        self.function, self.name, self.taken, self.calls = function, name, taken, calls

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        try:
            return self.function(*arguments, **named)
        finally:
            self.taken[self.name] += time.process_time() - started
            self.calls[self.name] += 1


class TimedLibrary:
    """The kernels' library, every function timed."""

    def __init__(self, library: Any, taken: Counter[str], calls: Counter[str]) -> None:
        self._library, self._sinks = library, (taken, calls)

    def __getattr__(self, name: str) -> Any:
        timed = Timed(getattr(self._library, name), name, *self._sinks)
        setattr(self, name, timed)
        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--keep", type=float, default=1.0, help="share of error channels kept")
    parser.add_argument("--steps", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    net, step = our_network("compiled", given.model, given.batch)
    if given.keep < 1:
        for unit in net.units:
            if hasattr(unit, "pruner"):
                unit.pruner = ChannelPruning(given.keep)
    taken: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    engine._library = TimedLibrary(engine._library, taken, calls)  # type: ignore[assignment]
    F.conv2d = Timed(F.conv2d, "convolutions forward", taken, calls)  # type: ignore[assignment]
    aten = torch.ops.aten
    aten.convolution_backward = Timed(aten.convolution_backward, "convolutions backward", taken, calls)
    rows: dict[str, list[float]] = defaultdict(list)
    for number in range(given.steps + 3):
        taken.clear(), calls.clear()
        started = time.process_time()
        step()
        whole = time.process_time() - started
        if number >= 3:  # the first ones warm up
            for name, seconds in (taken | {"whole step": whole, "the rest": whole - taken.total()}).items():
                rows[name].append(seconds)
    print(f"{given.model}, batch {given.batch}, keep {given.keep}, one thread")
    print("| part | calls | ms |\n|---|---|---|")
    for name in sorted(rows, key=lambda n: -statistics.median(rows[n])):
        print(f"| {name} | {calls[name] or ''} | {1e3 * statistics.median(rows[name]):.2f} |")


if __name__ == "__main__":
    main()
