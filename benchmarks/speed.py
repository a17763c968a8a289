"""What simulated fixed-point training costs beside plain PyTorch: interleaved, paired, each variant its own process.

    python benchmarks/speed.py [--quick] [--json] [--threads 1,2] [--models ...] [--rounds 9]

Every round runs one step of every variant in turn, so that whatever else the machine does meets all of them; a ratio
is the median over rounds of (variant's time / eager's time in the same round), with its quartiles. Processes of their
own give each variant the allocator, caches and memory peak it would have alone.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

MODELS = ("lenet5", "resnet8", "resnet20", "mobilenetv1-0.25")
VARIANTS = ("eager", "channels_last", "compile", "brevitas", "compiled", "torch")
"""fp32 eager, fp32 channels_last, fp32 under torch.compile, Brevitas QAT (forward only), ours twice."""
QUICK_VARIANTS = ("eager", "channels_last", "compiled")
OURS = ("compiled", "torch")
BATCH, MEMORY_BATCH = 64, 256
LR, MOMENTUM, DECAY = 0.05, 0.9, 1e-4


def make_step(variant: str, model: str, batch: int):
    """A function that does one training step of `variant`."""
    import torch
    import torch.nn.functional as F

    from qtrain.models import build, info

    about = info(model)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *about.input_shape, generator=generator)
    labels = torch.randint(0, about.n_classes, (batch,), generator=generator)
    module = build(model, seed=0)
    if variant in OURS:
        return _our_step(variant, module, about, x, labels)
    if variant == "brevitas":
        with_brevitas(module)
    optimizer = torch.optim.SGD(module.parameters(), LR, MOMENTUM, weight_decay=DECAY)
    if variant == "channels_last":
        module, x = module.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    run = torch.compile(module) if variant == "compile" else module

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(run(x), labels).backward()
        optimizer.step()

    return step


def _our_step(engine_name, module, about, x, labels):
    import torch

    from qtrain import engine
    from qtrain.layers import NumberPlan, quantize
    from qtrain.layers.loss import cross_entropy
    from qtrain.layers.optimizer import FixedSGD
    from qtrain.layers.quantizer import Clock

    engine.use(engine_name)
    net = quantize(module, about.input_shape, NumberPlan.fixed(8), name=about.name)
    net.memory_format = torch.channels_last
    optimizer = FixedSGD(net, LR, MOMENTUM, DECAY)

    def step() -> None:
        logits, tape = net.run(x)
        _, error, scale = cross_entropy(logits, labels)
        net.run_back(tape, net.logit_error(error, tape))
        optimizer.step(Clock(0, net.step), scale)
        net.step += 1

    return step


def with_brevitas(module) -> None:
    """Swap convolutions, linear layers and ReLUs for Brevitas' 8-bit fixed-point ones, in place."""
    import brevitas.nn as qnn
    from brevitas.quant import Int8WeightPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
    from torch import nn

    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            new = qnn.QuantConv2d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, child.padding,
                groups=child.groups, bias=child.bias is not None, weight_quant=Int8WeightPerTensorFixedPoint,
            )  # fmt: skip
        elif isinstance(child, nn.Linear):
            new = qnn.QuantLinear(
                child.in_features, child.out_features, child.bias is not None,
                weight_quant=Int8WeightPerTensorFixedPoint,
            )  # fmt: skip
        elif isinstance(child, nn.ReLU):
            new = qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint)
        else:
            with_brevitas(child)
            continue
        setattr(module, name, new)


def work(variant: str, model: str, batch: int, threads: int) -> None:
    """A worker: for every line on stdin, run that many steps; answer with seconds, page faults and peak memory."""
    import torch

    torch.set_num_threads(threads)
    step = make_step(variant, model, batch)
    before = resource.getrusage(resource.RUSAGE_SELF)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    for line in sys.stdin:
        faults, wall, cpu = before.ru_minflt, time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            step()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        before = resource.getrusage(resource.RUSAGE_SELF)
        answer = {
            "wall_s": wall,
            "cpu_s": cpu,
            "faults": before.ru_minflt - faults,
            "growth_bytes": before.ru_maxrss * 1024 - resident,
        }
        print(json.dumps(answer), flush=True)


class Worker:
    """A variant in a process of its own."""

    def __init__(self, variant: str, model: str, batch: int, threads: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", variant, model, str(batch), str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def steps(self, n: int) -> dict:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{n}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def compare(model: str, variants: tuple[str, ...], threads: int, rounds: int, clock: str) -> dict[str, dict]:
    """Ratios to eager of every variant's time a step, its page faults and its step time."""
    workers = {v: Worker(v, model, BATCH, threads) for v in variants}
    for worker in workers.values():
        worker.steps(3)
    taken = [{v: w.steps(1) for v, w in workers.items()} for _ in range(rounds)]
    for worker in workers.values():
        worker.close()
    results = {}
    for v in variants:
        low, middle, high = statistics.quantiles([t[v][clock] / t["eager"][clock] for t in taken], n=4)
        to_last = statistics.median(t[v][clock] / t["channels_last"][clock] for t in taken)
        results[v] = {
            "ratio": middle, "quartiles": [low, high], "vs_channels_last": to_last,
            "step_ms": 1e3 * statistics.median(t[v][clock] for t in taken),
            "faults": statistics.median(t[v]["faults"] for t in taken),
        }  # fmt: skip
    return results


def peak_growth(model: str, variant: str) -> int:
    """Bytes by which three steps at MEMORY_BATCH raise the process's peak."""
    worker = Worker(variant, model, MEMORY_BATCH, 1)
    growth = worker.steps(3)["growth_bytes"]
    worker.close()
    return growth


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two models, one thread, no twin: under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=("wall_s", "cpu_s"), default="wall_s")
    asked = parser.parse_args()
    models = ("resnet20", "lenet5") if asked.quick else tuple(asked.models.split(","))
    variants = QUICK_VARIANTS if asked.quick else tuple(asked.variants.split(","))
    threads = (1,) if asked.quick else tuple(int(t) for t in asked.threads.split(","))
    if not asked.json:
        print(f"torch {version('torch')}, Python {platform.python_version()}, batch {BATCH}, {asked.clock}")
        print("| model | threads | variant | ratio | quartiles | vs channels_last | ms a step | page faults a step |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
    brief = {}
    for model, n in itertools.product(models, threads):
        rows = compare(model, variants, n, asked.rounds, asked.clock)
        ours = rows["compiled"]
        brief.setdefault(
            model,
            {"vs_fp32_eager": round(ours["ratio"], 3), "vs_fp32_channels_last": round(ours["vs_channels_last"], 3)},
        )
        for v, r in rows.items() if not asked.json else ():
            low, high = r["quartiles"]
            print(
                f"| {model} | {n} | {v} | {r['ratio']:.2f} | {low:.2f}-{high:.2f} | {r['vs_channels_last']:.2f} "
                f"| {r['step_ms']:.1f} | {r['faults']:.0f} |",
                flush=True,
            )
    if asked.json:
        print(json.dumps(brief))
        return
    if "resnet20" in models:
        growth = {v: peak_growth("resnet20", v) for v in ("eager", "channels_last", *OURS)}
        rows = ", ".join(f"{v} {g / 2**20:.0f} MiB ({g / growth['eager']:.2f})" for v, g in growth.items())
        print(f"\nGrowth of the resident peak, ResNet-20, batch {MEMORY_BATCH}: {rows}")


if __name__ == "__main__":
    main()
