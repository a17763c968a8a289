"""Learning from labels, and for an autoencoder from the input itself."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from qtrain.formats.fixed import FixedTensor
from qtrain.layers import QuantizedNetwork
from qtrain.layers.loss import cross_entropy, mean_squared_error
from qtrain.recipes.base import Batch, Outcome, Select

EVALUATION_BATCH = 500


class Supervised:
    """Cross-entropy with the label; with `reconstruct` the squared error to the network's own input."""

    name: ClassVar[str] = "supervised"

    def __init__(self, reconstruct: bool = False) -> None:
        self.reconstruct = reconstruct

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
        return Outcome(losses, scale)

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        right, total = 0, 0.0
        for start in range(0, len(images), EVALUATION_BATCH):
            part, wanted = images[start : start + EVALUATION_BATCH], labels[start : start + EVALUATION_BATCH]
            logits, _ = net.run(part, training=False, record=False)
            total += float(self._loss(logits, part, wanted)[0].double().sum())
            if not self.reconstruct:
                right += int((logits.values.argmax(1) == wanted).sum())
        n = max(len(images), 1)
        return (None if self.reconstruct else right / n), total / n

    def _loss(self, logits: FixedTensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, float]:
        if self.reconstruct:
            return mean_squared_error(logits, images.to(logits.values.dtype))
        return cross_entropy(logits, labels)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass
