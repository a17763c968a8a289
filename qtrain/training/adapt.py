"""Scenario adapt: a network trained on one domain, deployed on another, and how well it does there all along."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qtrain.data.streams import Batches
from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.layers import NumberPlan, quantize
from qtrain.layers.loss import cross_entropy
from qtrain.layers.optimizer import FixedSGD
from qtrain.layers.quantizer import Clock
from qtrain.recipes import Batch, Material
from qtrain.training.rates import learning_rate


def pretrain(model: nn.Module, input_shape: tuple[int, int, int], material: Material, experiment: Experiment) -> None:
    """Train `model` with labels in float32 for `stream.pretrain_steps` shuffled mini-batches of undrifted images: what
    happens before deployment, on a machine whose energy is not the device's, and so is not recorded.

    Raises QtrainError where a scenario adapt has no trained network to begin with.
    """
    n_steps, settings = experiment.stream.pretrain_steps, experiment.optimizer
    if experiment.stream.scenario == "adapt" and not (n_steps or experiment.init):
        raise QtrainError("--scenario adapt deploys a trained network; give --pretrain-steps or --init")
    if not n_steps:
        return
    if material.reconstruct:
        raise QtrainError(f"--pretrain-steps trains classes, {experiment.model} has none; give --init")
    net = quantize(model, input_shape, NumberPlan.float32())
    optimizer = FixedSGD(net, settings.lr, settings.momentum, settings.weight_decay)
    batches = Batches(len(material.images), experiment.train.batch_size, n_steps=n_steps, seed=experiment.seed)
    for step in range(n_steps):
        rows = torch.from_numpy(batches.indices(step).copy())
        logits, tape = net.run(material.images[rows], record=False)
        _, error, scale = cross_entropy(logits, material.labels[rows])
        net.run_back(tape, net.logit_error(error, tape))
        optimizer.step(Clock(experiment.seed, step), scale, learning_rate(settings, step, n_steps))


class Adaptation:
    """Accuracy of a deployed network: on the domain it was trained for, and prequential, on each mini-batch just before
    it is learned from (Dawid 1984; Gama, Sebastiao, Rodrigues 2013). Its predictions are the product's own use and
    are not charged to learning."""

    def __init__(self, active: bool) -> None:
        self.active = active
        self.source_accuracy: float | None = None
        self.right, self.seen = 0, 0

    def deployed(self, job: Any) -> None:
        """Note the accuracy on undrifted images."""
        if self.active:
            self.source_accuracy, _ = job.recipe.evaluate(job.net, job.test_images, job.test_labels)

    def predict(self, job: Any, batch: Batch) -> None:
        """Count what the network gets right of a mini-batch it has not learned from."""
        if self.active:
            accuracy, _ = job.recipe.evaluate(job.net, batch.images, batch.labels)
            self.right += round((accuracy or 0.0) * len(batch.images))
            self.seen += len(batch.images)

    def result(self) -> dict[str, Any]:
        """Accuracies, for the run's result."""
        if not self.active:
            return {}
        return {"source_accuracy": self.source_accuracy, "prequential_accuracy": self.right / max(self.seen, 1)}

    def state(self) -> dict[str, Any]:
        return {"source_accuracy": self.source_accuracy, "right": self.right, "seen": self.seen}

    def load_state(self, state: dict[str, Any]) -> None:
        self.source_accuracy, self.right, self.seen = state["source_accuracy"], state["right"], state["seen"]
