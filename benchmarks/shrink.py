"""Do filtering and pruning really shrink what the simulator computes? Step times, interleaved, and recorded MACs.

    python benchmarks/shrink.py [--model resnet20] [--batch 64] [--rounds 15] [--layers]

One 8-bit training step on random images per setting and round; prints each setting's median processor time (one
thread) and MACs as shares of the dense step's. --layers: instead, for each shape of convolution, its backward passes
whole and with half the channels, and the copy that gathers them: what qtrain.layers.products.gathers rests on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from qtrain import engine
from qtrain.engine.channels import gather
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
    started = time.process_time()
    logits, tape = net.run(images[rows], rows=rows)
    _, error, scale = cross_entropy(logits, rows % logits.values.shape[1])
    net.run_back(tape, net.logit_error(error, tape))
    optimizer.step(Clock(0, net.step), scale)
    net.step += 1
    return time.process_time() - started


def median_ms(run: Callable[[], object], rounds: int) -> float:
    """Milliseconds of `run`, after one call that warms up."""
    run()
    taken = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return 1e3 * statistics.median(taken)


def by_layer(model: str, batch: int, rounds: int) -> None:
    """One line for each shape of convolution."""
    layers = quantize(build(model), info(model).input_shape, NumberPlan.fixed(8)).network.layers
    shapes = {(la.in_channels, la.out_channels, la.in_height, la.kernel_height, la.stride_height, la.groups): la
              for la in layers if la.kind == "conv"}  # fmt: skip
    print("| convolution | input error | of half | weight gradient | of half | gather |\n|---|---|---|---|---|---|")
    for (c, k, size, kernel, stride, groups), layer in shapes.items():
        lay = torch.channels_last
        x = torch.randint(0, 256, (batch, c, size, size)).float().contiguous(memory_format=lay)
        error = torch.randint(-127, 128, (batch, k, layer.out_height, layer.out_width)).float()
        error = error.contiguous(memory_format=lay)
        weight = torch.randint(-127, 128, (k, c // groups, kernel, kernel)).float()
        kept = torch.arange(0, k, 2)
        cells = []
        for mask in ([True, False, False], [False, True, False]):
            for some in (torch.arange(k), kept):
                own = 1 if groups == 1 else len(some) * groups // k
                source = x[:, :: k // len(some)].contiguous(memory_format=lay) if groups == c > 1 else x
                given = (error[:, some].contiguous(memory_format=lay), source, weight[some], None, [stride] * 2,
                         [kernel // 2] * 2, [1, 1], False, [0, 0], own, mask)  # fmt: skip
                cells.append(median_ms(lambda given=given: torch.ops.aten.convolution_backward(*given), rounds))
        cells.append(median_ms(lambda error=error, kept=kept: gather(error, kept), rounds))
        name = f"{c} to {k}, {size} x {size}, {kernel} x {kernel} / {stride}, {groups} groups"
        print(f"| {name} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--layers", action="store_true", help="single convolutions instead of steps")
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine.use("compiled")
    if given.layers:
        by_layer(given.model, given.batch, given.rounds)
        return
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
