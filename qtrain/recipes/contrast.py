"""Selective data contrast: learning from an unlabelled, correlated stream through a small buffer.

Wu et al., "Enabling On-Device Self-Supervised Contrastive Learning with Selective Data Contrast", DAC 2021
(arXiv 2106.03796).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qtrain.data.labels import labelled
from qtrain.data.streams import generator
from qtrain.data.views import still, strong
from qtrain.layers import QuantizedNetwork
from qtrain.recipes.base import Batch, Material, Outcome, PlainRecipe, Select
from qtrain.recipes.contrastive import contrast_scores, farthest_first, nt_xent
from qtrain.recipes.evaluation import representations
from qtrain.recipes.probe import linear_probe
from qtrain.recipes.soft_targets import averaged

VIEWS, REPLACE, PROBE = 10, 11, 12
"""Tell the random numbers of views, of random replacement and of the probe's instances from others'."""
SCORE_BYTES = 4
SHARES = (0.01, 0.1, 1.0)
"""Shares of the probe's labels at which the features are judged."""


class Contrast(PlainRecipe):
    """Each step scores buffer and streamed segment, keeps the `buffer` instances that the policy prefers and makes one
    NT-Xent update on two strong views of them (loss in float, its gradient quantized as an error).

    score: the highest contrast scores of image and mirror image (where images may not be mirrored: shifted, since a
    score that training can't lower would keep the same instances for ever); selective-backprop: the highest NT-Xent
    losses of the same pairs; k-centre: those that cover the rest; fifo and random need no pass. A kept instance is
    scored again when `interval` steps have passed. Scores are forward passes as deployed, charged to "inner". The
    network's outputs are the projection; features are what its last layer reads, and the accuracy is a linear
    classifier's on them. The buffer holds raw pixels on the device.
    """

    kind: ClassVar[str] = "contrast"
    instance_losses: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    def __init__(
        self, material: Material, policy: str, buffer: int, interval: int, temperature: float, probe: int
    ) -> None:
        self.material, self.policy, self.size, self.interval = material, policy, buffer, interval
        self.temperature = temperature
        self.images = material.images[:0]
        self.scores, self.ages = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        order = generator(material.seed, PROBE).permutation(len(material.labelled))[:probe]
        self.probed = material.labelled[torch.from_numpy(order)]

    @staticmethod
    def n_outputs(settings: Any, n_classes: int) -> int:
        return int(settings.dimensions)

    def learn(self, net: QuantizedNetwork, batch: Batch, rows: Tensor, select: Select) -> Outcome:
        self._replace(net, batch.images[rows], batch.step)
        n = len(self.images)
        if n < 2:
            return Outcome(torch.zeros(0), 1.0, 0, updated=False)
        views = [
            strong(self.images.numpy(), generator(self.material.seed, batch.step, VIEWS, which), self.material.flip)
            for which in (1, 2)
        ]
        outputs, tape = net.run(torch.from_numpy(np.concatenate(views)))
        losses, gradient = nt_xent(outputs.values, self.temperature)
        error, scale = averaged(outputs, gradient, 2 * n)
        net.run_back(tape, net.logit_error(error, tape))
        return Outcome(losses, scale, len(rows), metrics={"contrast_score": float(self.scores.mean())})

    def _replace(self, net: QuantizedNetwork, segment: Tensor, step: int) -> None:
        """Choose the new buffer among the old one and the segment."""
        images = torch.cat([self.images, segment])
        scores = torch.cat([self.scores, torch.zeros(len(segment))])
        ages = torch.cat([self.ages + 1, torch.full((len(segment),), self.interval)])  # new: due at once
        n = min(self.size, len(images))
        if self.policy == "fifo":
            kept = torch.arange(len(images) - n, len(images))
        elif self.policy == "random":
            order = generator(self.material.seed, step, REPLACE).permutation(len(images))
            kept = torch.from_numpy(order[:n])
        elif self.policy == "k-centre":
            outputs, _ = net.run(images, payer="inner", training=False)
            kept = farthest_first(outputs.values.float(), n)
        else:
            due = (ages >= self.interval).nonzero().flatten()
            scores[due] = self._scored(net, images[due], due, len(images))
            ages[due] = 0
            kept = scores.argsort(descending=True, stable=True)[:n]
        kept = kept.sort().values
        self.images, self.scores, self.ages = images[kept], scores[kept], ages[kept]

    def _scored(self, net: QuantizedNetwork, images: Tensor, due: Tensor, n: int) -> Tensor:
        both = torch.cat([images, torch.from_numpy(still(images.numpy(), self.material.flip))])
        outputs, _ = net.run(both, rows=torch.cat([due, due + n]), payer="inner", training=False)
        values = outputs.values.float()
        if self.policy == "selective-backprop":
            return nt_xent(values, self.temperature)[0]
        return contrast_scores(values[: len(images)], values[len(images) :])

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        return self._probe(net, images, labels, self.probed)

    def details(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Accuracy of linear classifiers by the number of labels they were given."""
        own = self.material.labels[self.probed].numpy()
        n_classes = len(np.unique(own))
        table = {}
        for share in SHARES[:-1]:
            few = labelled(own, max(n_classes, round(share * len(own))), self.material.seed)
            table[str(len(few))] = self._probe(net, images, labels, self.probed[torch.from_numpy(few)])[0]
        table[str(len(own))] = self._probe(net, images, labels, self.probed)[0]
        return {"linear_accuracy_by_labels": table}

    def _probe(self, net: QuantizedNetwork, images: Tensor, labels: Tensor, known: Tensor) -> tuple[float, float]:
        given = representations(net, self.material.images[known]).double().numpy()
        asked = representations(net, images).double().numpy()
        return linear_probe(given, self.material.labels[known].numpy(), asked, labels.numpy())

    def extra_ram_bytes(self, net: QuantizedNetwork) -> dict[str, int]:
        return {"contrast buffer": self.size * (self.material.images[0].numel() + SCORE_BYTES)}

    def tensors(self) -> dict[str, Tensor]:
        return {"images": self.images, "scores": self.scores, "ages": self.ages}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.images, self.scores, self.ages = tensors["images"], tensors["scores"], tensors["ages"]


RECIPE = Contrast
