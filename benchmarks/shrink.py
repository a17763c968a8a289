"""Do filtering and pruning really shrink what the simulator computes? Step times, interleaved, and recorded MACs.

    python benchmarks/shrink.py [--model resnet20] [--batch 64] [--rounds 15]

One 8-bit training step on random images per setting and round; prints each setting's median time and MACs as shares of
the dense step's.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from qtrain.layers import NumberPlan, QuantizedNetwork, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.models import build, info
from qtrain.pruners import NoPruning
from qtrain.pruners.channel import ChannelPruning

SETTINGS = {"dense": (1.0, 1.0), "keep 0.5": (1.0, 0.5), "keep 0.25": (1.0, 0.25), "half kept": (0.5, 1.0),
            "half kept, keep 0.5": (0.5, 0.5)}  # fmt: skip
"""(share of the batch kept, share of error channels kept)"""


def step(net: QuantizedNetwork, optimizer: FixedSGD, images: torch.Tensor, rows: torch.Tensor) -> float:
    """Seconds of one training step on the instances `rows`."""
    started = time.perf_counter()
    logits, tape = net.run(images[rows], rows=rows)
    _, error, scale = cross_entropy(logits, rows % logits.values.shape[1])
    net.run_back(tape, net.logit_error(error, tape))
    optimizer.step(Clock(0, net.step), scale)
    net.step += 1
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    shape = info(given.model).input_shape
    images = torch.rand(given.batch, *shape)
    runs, times = {}, {name: [] for name in SETTINGS}
    for name, (_, keep) in SETTINGS.items():
        pruner = NoPruning() if keep == 1 else ChannelPruning(keep=keep)
        net = quantize(build(given.model), shape, NumberPlan.fixed(8), pruner, given.model)
        net.memory_format = torch.channels_last
        runs[name] = (net, FixedSGD(net, 0.01, 0.9))
    for number in range(given.rounds + 2):
        for name, (share, _) in SETTINGS.items():
            seconds = step(*runs[name], images, torch.arange(round(share * given.batch)))
            if number >= 2:  # the first two warm up
                times[name].append(seconds)
    dense_s = statistics.median(times["dense"])
    dense_macs = runs["dense"][0].trace(runs["dense"][0].schedule()).macs()
    for name, (net, _) in runs.items():
        median_s = statistics.median(times[name])
        macs = net.trace(net.schedule()).macs()
        shares = f"{median_s / dense_s:5.2f} of the time  {macs / dense_macs:5.2f} of the MACs"
        print(f"{name:22} {1e3 * median_s:7.1f} ms  {shares}")


if __name__ == "__main__":
    main()
