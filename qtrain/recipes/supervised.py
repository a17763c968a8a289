"""Learning from labels, and for an autoencoder from the input itself."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from qtrain.formats.fixed import FixedTensor
from qtrain.layers import QuantizedNetwork
from qtrain.layers.loss import cross_entropy, mean_squared_error
from qtrain.recipes.base import Batch, Material, Outcome, PlainRecipe, Select
from qtrain.recipes.evaluation import BATCH, classify


class Supervised(PlainRecipe):
    """Cross-entropy with the label; for a network that reconstructs, the squared error to its own input."""

    kind: ClassVar[str] = "supervised"

    def __init__(self, material: Material) -> None:
        self.reconstruct = material.reconstruct

    def judge(self, net: QuantizedNetwork, batch: Batch, rows: Tensor) -> Tensor:
        images = batch.images[rows]
        logits, _ = net.run(images, rows=rows, payer="uncertain", training=False)
        return self._loss(logits, images, batch.labels[rows])[0]

    def learn(self, net: QuantizedNetwork, batch: Batch, rows: Tensor, select: Select) -> Outcome:
        images, labels = batch.images[rows], batch.labels[rows]
        logits, tape = net.run(images, rows=rows)
        losses, error, scale = self._loss(logits, images, labels)
        keep = select(losses)
        if keep is not None:
            tape.narrow(keep)
            narrowed = FixedTensor(logits.values[keep], logits.exponent)
            _, error, scale = self._loss(narrowed, images[keep], labels[keep])
        if len(error):
            net.run_back(tape, net.logit_error(error, tape))
        return Outcome(losses, scale, len(error), updated=len(error) > 0)

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        if not self.reconstruct:
            return classify(net, images, labels, lambda logits, wanted: cross_entropy(logits, wanted)[0])
        total = 0.0
        for part in images.split(BATCH):
            rebuilt, _ = net.run(part, training=False, record=False)
            total += float(self._loss(rebuilt, part, part)[0].double().sum())
        return None, total / max(len(images), 1)

    def _loss(self, logits: FixedTensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, float]:
        if self.reconstruct:
            return mean_squared_error(logits, images.to(logits.values.dtype))
        return cross_entropy(logits, labels)


RECIPE = Supervised
