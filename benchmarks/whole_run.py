"""What a whole filtered and pruned training run costs beside plain fp32 SGD in PyTorch on the same stream.

    python benchmarks/whole_run.py [--model resnet20] [--data cifar10] [--data-dir DIR] [--steps 240] [--slice 12]
                                   [--settings eif+emp,keep.3+emp] [--threads 1]

Every variant is a process of its own; they take turns of --slice steps, so that whatever else the machine does meets
all of them. Ours is the library's own loop (stream, filter, uncertain forwards, metrics, energy, looks at the
numerics); the other a plain loop over the same instances in the same order. Runs are of one epoch, of which
the first --steps are made, the first slice to warm up. Times a step and ratios are of the sums of all other slices, by
the wall clock and the processor's; shares and MACs those of the steps made, MACs against dense training, every
overhead counted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from contextlib import suppress

from pairs import Meter, Worker, serve

SETTINGS = {
    "dense": {"filter.kind": "none", "prune.kind": "none"},
    "emp": {"filter.kind": "none", "prune.kind": "channel", "prune.keep": 0.5},
    "keep.3": {"filter.kind": "random", "filter.keep": 0.3, "prune.kind": "none"},
    "keep.3+emp": {"filter.kind": "random", "filter.keep": 0.3, "prune.kind": "channel", "prune.keep": 0.5},
    "eif": {"filter.kind": "instance", "filter.rate": 0.3, "prune.kind": "none"},
    "eif+emp": {"filter.kind": "instance", "filter.rate": 0.3, "prune.kind": "channel", "prune.keep": 0.5},
}
"""eif: the early instance filter at R_set 0.3; emp: error-map pruning, half the channels kept; keep.3: 3 of 10
instances drawn at random, without a filter network: what the engine gains where the share is fixed."""
FLOAT = ("eager", "channels_last")


def experiment(given: dict):
    from qtrain.experiment import Experiment

    common = {
        "model": given["model"], "data.name": given["data"], "data.dir": given["dir"], "numbers.bits": 8,
        "train.epochs": 1, "run.threads": given["threads"], "run.engine": given["engine"],
    }  # fmt: skip
    return Experiment().with_options(common | SETTINGS.get(given["variant"], {}) | given["options"])


def float_step(given: dict):
    """A function that does the next step of plain fp32 training."""
    import torch
    import torch.nn.functional as F

    from qtrain import models
    from qtrain.training.rates import learning_rate
    from qtrain.training.setup import build

    job = build(experiment(given))
    torch.set_num_threads(given["threads"])
    settings, n_steps = job.experiment.optimizer, job.batches.n_steps
    module = models.build(given["model"], job.net.input_shape, job.net.network.layers[-1].in_channels)
    layout = torch.channels_last if given["variant"] == "channels_last" else torch.contiguous_format
    module = module.to(memory_format=layout)
    optimizer = torch.optim.SGD(module.parameters(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    steps = iter(range(n_steps))

    def step() -> None:
        number = next(steps)
        indices = torch.from_numpy(job.batches.indices(number).copy())
        images = job.images[indices].contiguous(memory_format=layout)
        optimizer.param_groups[0]["lr"] = learning_rate(settings, number, n_steps)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(images), job.labels[indices]).backward()
        optimizer.step()

    return step


class Enough(Exception):
    """The steps asked for are made."""


def work(given: dict) -> None:
    """A worker: plain steps, or our whole run, which answers whenever it has come as far as it was asked to."""
    if given["variant"] in FLOAT:
        serve(float_step(given))
        return
    from qtrain.store import Run
    from qtrain.training import loop

    meter, until, jobs, build = Meter(), 0, [], loop.build

    def on_progress(progress) -> None:
        nonlocal until
        if progress.step >= until:
            meter.answer()
            if not (n := meter.wait()):
                raise Enough
            until += n

    loop.build = lambda settings: jobs.append(build(settings)) or jobs[-1]
    until = meter.wait()
    with tempfile.TemporaryDirectory() as folder, Run.create(folder, experiment(given)) as place, suppress(Enough):
        loop.run(experiment(given), place, on_progress)
    print(json.dumps(shares(jobs[0], until)), flush=True)


def shares(job, n_steps: int) -> list[float]:
    """Kept, uncertain, MACs left of dense training, the filter network's forward over the main one's."""
    macs = job.net.trace(job.schedule).macs()
    size, own = job.experiment.train.batch_size, job.filter.network
    if own is not None:
        macs += own.trace(job.filter_schedule).macs()
    seen = {"main": 0, "uncertain": 0}
    last = len(job.net.network.layers) - 1
    for (index, phase, payer, batch, _), (count, _) in job.net.counts.items():
        if index == last and phase == "forward":
            seen[payer] += batch * count
    dense = n_steps * job.schedule.dense().step(size).macs()
    return [*(n / (n_steps * size) for n in seen.values()), macs / dense, own.network.macs / job.net.network.macs
            if own is not None else 0.0]  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--settings", default="eif+emp,keep.3+emp", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--options", default="{}", help="more of the experiment's options, as JSON")
    parser.add_argument("--steps", type=int, default=240, help="made, a multiple of --slice")
    parser.add_argument("--slice", type=int, default=12, help="steps a turn, a multiple of 12: a run reports every few")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engine", default="compiled")
    asked = parser.parse_args()
    given = {"model": asked.model, "data": asked.data, "dir": asked.data_dir, "threads": asked.threads,
             "engine": asked.engine, "options": json.loads(asked.options)}  # fmt: skip
    names = [*FLOAT, *asked.settings.split(",")]
    workers = {name: Worker(__file__, json.dumps(given | {"variant": name})) for name in names}
    wall_s, cpu_s = Counter(), Counter()
    for number in range(asked.steps // asked.slice):
        for name, worker in workers.items():
            took = worker.steps(asked.slice)
            if number:
                wall_s[name] += took["wall_s"]
                cpu_s[name] += took["cpu_s"]
    for worker in workers.values():
        worker.end()
    results = {name: worker.answer() for name, worker in workers.items() if name not in FLOAT}
    for worker in workers.values():
        worker.close()
    n_steps = asked.steps - asked.slice
    print(f"{asked.model}, {asked.data}, {asked.steps} steps, {asked.threads} threads, load {os.getloadavg()[0]:.1f}")
    print("| run | wall ms | of eager | of channels_last | cpu ms | of eager | of channels_last ", end="")
    print("| kept | uncertain | MACs left | filter's forward |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        cells = []
        for total in (wall_s, cpu_s):
            cells += [f"{1e3 * total[name] / n_steps:.1f}", *(f"{total[name] / total[f]:.3f}" for f in FLOAT)]
        cells += [f"{share:.3f}" for share in results.get(name, [1, 0, 1, 0])]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
