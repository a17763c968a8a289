"""The loop: stream, steps, metrics, checkpoints, evaluation, and the result of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from hwmodel import devices
from hwmodel.operating_point import configured
from qtrain import engine
from qtrain.data.transforms import augment
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.layers.exactness import not_verifiable
from qtrain.recipes import Batch
from qtrain.store import Run
from qtrain.store.scalars import Scalars
from qtrain.training import snapshot
from qtrain.training.adapt import Adaptation
from qtrain.training.health import NumericsHealth
from qtrain.training.meter import EnergyMeter
from qtrain.training.pruned import pruning_report
from qtrain.training.rates import learning_rate
from qtrain.training.record import run_record
from qtrain.training.setup import Job, build
from qtrain.training.signals import stop_requests
from qtrain.training.step import train_step
from qtrain.training.totals import Progress, Totals
from qtrain.training.watch import AccuracyWatch

N_ROWS = 200
"""Rows of metrics a run writes at most, about: enough for a curve."""
TIMED_STEPS = 10
"""Steps by which the engine "auto" judges whether compiling its kernels repays."""
N_LOOKS = 20
"""Steps of a run in which the numerics are looked at, about: a look costs several passes over every tensor."""
N_EVALUATIONS = 50
"""Evaluations a run makes at most, about."""


class Interrupted(QtrainError):
    """Stopped from outside after a checkpoint was written."""


def run(experiment: Experiment, folder: Run, on_progress: Callable[[Progress], None] | None = None) -> dict[str, Any]:
    """Train what `experiment` describes into `folder`, continuing from its last checkpoint; returns the result.

    Raises QtrainError naming cause and cure; Interrupted (with a checkpoint written) on KeyboardInterrupt.
    """
    loop = _Loop(experiment, folder, on_progress)
    try:
        return loop.run()
    finally:
        if loop.scalars is not None:
            loop.scalars.close()


class _Loop:
    def __init__(self, experiment: Experiment, folder: Run, on_progress: Callable[[Progress], None] | None) -> None:
        self.experiment, self.folder, self.on_progress = experiment, folder, on_progress
        self.scalars = Scalars(folder.path) if experiment.run.tensorboard else None
        self.job: Job = build(experiment)
        self.totals = Totals()
        self.accuracy: float | None = None
        self.before: float | None = None
        self.details_before: dict[str, Any] = {}
        self.adaptation = Adaptation(experiment.stream.scenario == "adapt")
        device = configured(devices.load(experiment.run.devices[0]), experiment.run.kernels or None)
        self.meters = [EnergyMeter(self.job.net, self.job.schedule, device)]
        if self.job.filter_schedule is not None:
            self.meters.append(EnergyMeter(self.job.filter.network, self.job.filter_schedule, device))
        self.health = NumericsHealth(self.job.net)
        counts = self.job.test_labels.bincount()
        self.watch = AccuracyWatch(experiment.model, float(counts.max() / counts.sum()))
        self.started = time.perf_counter()
        self.resumed_from: int | None = None

    def run(self) -> dict[str, Any]:
        job, n_steps = self.job, self.job.batches.n_steps
        first = self._resume()
        if self.scalars is not None:
            self.scalars.add(self.folder.metrics())
        if first == 0 and (self.experiment.init or self.adaptation.active):
            self.before, _ = job.evaluate(n_steps - 1)
            self.watch.see(self.before)
            self.details_before = self._details()
            self.adaptation.deployed(job)
        per_epoch = _epochs_apart(job.batches.steps_per_epoch, n_steps)
        every = self.experiment.run.checkpoint_every or per_epoch
        interval = max(1, n_steps // N_ROWS)
        looks = max(1, n_steps // N_LOOKS)
        begun = time.perf_counter()
        with stop_requests() as stop:
            for step in range(first, n_steps):
                batch = self._batch(step)
                self.adaptation.predict(job, batch)
                if step % looks == 0:
                    self.health.watch()
                self.totals.add(train_step(job, batch, self._rate(step)))
                if step % looks == 0:
                    self._warn(self.health.collect(step))
                done = step + 1
                if done == first + TIMED_STEPS:
                    engine.prepare((time.perf_counter() - begun) / TIMED_STEPS * (n_steps - done))
                if done % per_epoch == 0 and done < n_steps:
                    self.accuracy, _ = job.evaluate(step)
                    self.watch.see(self.accuracy)
                if done % interval == 0 or done == n_steps:
                    self._report(done)
                if (done % every == 0 or stop.requested) and done < n_steps:
                    self._checkpoint(done)
                if stop.requested and done < n_steps:
                    raise Interrupted(
                        f"interrupted after step {done} of {n_steps}, nothing is lost; continue with: "
                        f"qtrain simulate --resume {self.folder.path}"
                    )
        return self._finish()

    def _batch(self, step: int) -> Batch:
        indices = torch.from_numpy(self.job.batches.indices(step).copy())
        images = self.job.images[indices]
        if self.experiment.data.augment:
            images = torch.from_numpy(
                augment(images.numpy(), self.job.batches.rng(step), flip=self.experiment.data.flip)
            )
        return Batch(self.job.drifted(images, step), self.job.labels[indices], indices, step)

    def _rate(self, step: int) -> float:
        return learning_rate(self.experiment.optimizer, step, self.job.batches.n_steps)

    # -- state on disk ---------------------------------------------------------------------------------------------

    def _checkpoint(self, step: int) -> None:
        tensors, state = snapshot.take(self.job)
        own = {
            **self.totals.state(),
            "accuracy": self.accuracy, "before": self.before, "details_before": self.details_before,
            "adaptation": self.adaptation.state(),
            "health": self.health.state(), "best": self.watch.best, "notices": self.job.notices.lines,
        }  # fmt: skip
        self.folder.save_checkpoint(step, tensors, {"job": state, "loop": own})

    def _resume(self) -> int:
        found = self.folder.load_checkpoint()
        if found is None:
            self.folder.clear()
            return 0
        step, tensors, state = found
        try:
            self._restore(tensors, state["job"], state["loop"])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:100]
            raise QtrainError(
                f"{self.folder.path}: its checkpoint is of another version ({reason}); begin anew in another --out"
            ) from error
        self.folder.truncate_metrics(step)
        self.resumed_from = step
        return step

    def _restore(self, tensors: Mapping[str, Any], state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        snapshot.put(self.job, tensors, state)
        self.totals.load_state(own)
        self.accuracy, self.before, self.details_before = own["accuracy"], own["before"], own["details_before"]
        self.adaptation.load_state(own["adaptation"])
        self.health.load_state(own["health"])
        self.watch.best, self.job.notices.lines = own["best"], list(own["notices"])

    # -- reports ---------------------------------------------------------------------------------------------------

    def _report(self, done: int) -> None:
        energy_j = sum(meter.read_j() for meter in self.meters)
        row = self.totals.row(done, self.accuracy, energy_j)
        self.folder.append_metrics(row)
        if self.scalars is not None:
            self.scalars.add([row])
        if self.on_progress is not None:
            self.on_progress(
                Progress(
                    done, self.job.batches.n_steps, self.accuracy, row["kept_share"], row.get("threshold"),
                    row["loss"], energy_j,
                )
            )  # fmt: skip

    def _details(self) -> dict[str, Any]:
        """What the recipe reports of the test set as it looks at the run's end."""
        job = self.job
        return job.recipe.details(job.net, job.drifted(job.test_images, job.batches.n_steps - 1), job.test_labels)

    def _finish(self) -> dict[str, Any]:
        job = self.job
        last = job.batches.n_steps - 1
        accuracy, loss = job.evaluate(last)
        details = self._details()
        record = run_record(job, self.totals.seen)
        self.folder.save_weights(snapshot.weights(job))
        whole_epoch = job.batches.n_steps >= job.batches.steps_per_epoch
        self._warn([*self.health.warnings(), *self.watch.warnings(accuracy, whole_epoch)])
        overflows = self.health.overflows()
        self.folder.save_numbers(snapshot.numbers(job) | {"health": self.health.report(), "overflows": overflows})
        self.folder.save_trace(record.to_json())
        result: dict[str, Any] = {
            "accuracy": accuracy,
            "loss": loss,
            "accuracy_before": self.before,
            **self.adaptation.result(),
            "seed": self.experiment.seed,
            "recipe": job.recipe.kind,
            "details": details,
            "details_before": self.details_before,
            "model": self.experiment.model,
            "data": self.experiment.data.name,
            "run": str(self.folder.path),
            "resumed_from_step": self.resumed_from,
            "n_steps": job.batches.n_steps,
            "n_updates": self.totals.updates,
            "wall_time_s": time.perf_counter() - self.started,
            "instances": self.totals.instances(),
            "warnings": job.notices.lines,
            "not_verifiable": not_verifiable(job.net.plan, job.net.network.layers),
            "pruning": pruning_report(job.net.pruner, record.trace),
            "accumulator_overflows": overflows,
            **record.summary(),
            "bills": record.bills(self.experiment.run.devices, self.experiment.run.kernels or None),
        }
        self.folder.finish(result)
        return result

    def _warn(self, lines: list[str]) -> None:
        for line in lines:
            self.job.notices.add(line)


def _epochs_apart(steps_per_epoch: int, n_steps: int) -> int:
    """Steps between evaluations: an epoch, or as many whole ones as keep them to about N_EVALUATIONS a run (an epoch of
    forty labelled instances is a single step)."""
    return steps_per_epoch * max(1, n_steps // (N_EVALUATIONS * steps_per_epoch))
