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
import os
import platform
import statistics
import sys
from importlib.metadata import version

from pairs import Worker, serve
from variants import OURS, available, make_step

MODELS = ("lenet5", "resnet8", "resnet20", "mobilenetv1-0.25")
VARIANTS = ("eager", "channels_last", "compile", "brevitas", "qpytorch", *OURS)
"""fp32 eager, fp32 channels_last, fp32 under torch.compile, Brevitas QAT (forward only), QPyTorch (where installed),
and ours with and without the compiled kernels. Besides these: bf16, PyTorch's autocast."""
QUICK_VARIANTS = ("eager", "channels_last", "compiled")
BATCH, MEMORY_BATCH = 64, 256


def work(variant: str, model: str, batch: int, threads: int, device: str) -> None:
    """A worker: runs steps as it is told."""
    import torch

    torch.set_num_threads(threads)
    serve(make_step(variant, model, batch, device), torch.cuda.synchronize if device == "cuda" else None)


def compare(model: str, variants: tuple[str, ...], threads: int, asked: argparse.Namespace) -> dict[str, dict]:
    """Ratios to eager of every variant's time a step, its page faults and its step time."""
    workers = {v: Worker(__file__, v, model, str(asked.batch), str(threads), asked.device) for v in variants}
    for worker in workers.values():
        worker.steps(3)
    taken = [{v: w.steps(1) for v, w in workers.items()} for _ in range(asked.rounds)]
    for worker in workers.values():
        worker.close()
    results, clock = {}, asked.clock
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
    worker = Worker(__file__, variant, model, str(MEMORY_BATCH), "1", "cpu")
    growth = worker.steps(3)["growth_bytes"]
    worker.close()
    return growth


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        variant, model, batch, threads, device = sys.argv[2:]
        work(variant, model, int(batch), int(threads), device)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two models, one thread, no twin: under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=("wall_s", "cpu_s"), default="wall_s")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = parser.parse_args()
    models = ("resnet20", "lenet5") if asked.quick else tuple(asked.models.split(","))
    variants = QUICK_VARIANTS if asked.quick else tuple(v for v in asked.variants.split(",") if available(v))
    threads = (1,) if asked.quick else tuple(int(t) for t in asked.threads.split(","))
    if not asked.json:
        print(f"torch {version('torch')}, Python {platform.python_version()}, batch {asked.batch}, {asked.device}, "
              f"{asked.clock}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
        print("| model | threads | variant | ratio | quartiles | vs channels_last | ms a step | page faults a step |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
    brief = {}
    for model, n in itertools.product(models, threads):
        rows = compare(model, variants, n, asked)
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
    if "resnet20" in models and asked.device == "cpu":
        growth = {v: peak_growth("resnet20", v) for v in ("eager", "channels_last", *OURS)}
        rows = ", ".join(f"{v} {g / 2**20:.0f} MiB ({g / growth['eager']:.2f})" for v, g in growth.items())
        print(f"\nGrowth of the resident peak, ResNet-20, batch {MEMORY_BATCH}: {rows}")


if __name__ == "__main__":
    main()
