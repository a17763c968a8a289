"""Robust nearest neighbours without labels: contrast between clean images and attacked ones.

Chen et al., "Self-Supervised Adversarial Training", ICASSP 2020 (arXiv 1911.06470).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from qtrain.data.streams import generator
from qtrain.layers import QuantizedNetwork
from qtrain.layers.inner import InnerPasses, unrecorded
from qtrain.recipes.attack import linf_attack
from qtrain.recipes.base import Batch, Material, Outcome, PlainRecipe, Select
from qtrain.recipes.contrastive import nt_xent
from qtrain.recipes.evaluation import outputs as outputs_of
from qtrain.recipes.neighbours import Neighbours
from qtrain.recipes.soft_targets import averaged

BANK = 13
"""Tells the random numbers of the bank's choice from others'."""
LABEL_BYTES = 1
_LEAST_SHARE = 1e-6


class Adversarial(PlainRecipe):
    """Attacks the streamed images with projected gradient descent against the nearest-neighbour classifier's own
    answers (no label of the stream is used), keeps the attacks that succeed and makes one update of NT-Xent between the
    outputs for clean and for attacked images (loss in float, its gradient quantized as an error).

    The representation is the network's output. The bank's is computed again every `refresh` steps (the paper: not
    stated). Attack and bank are charged to "inner"; parameters are frozen there. The update is the experiment's
    optimizer (the paper: Adam). Accuracy is the neighbours'.
    """

    kind: ClassVar[str] = "adversarial"
    instance_losses: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    def __init__(
        self, material: Material, neighbours: int, bank: int, refresh: int, epsilon: float, step_size: float,
        attack_steps: int, temperature: float, tested: int,
    ) -> None:  # fmt: skip
        self.material, self.k, self.refresh, self.temperature = material, neighbours, refresh, temperature
        self.tested = tested
        self.attack = linf_attack(material, epsilon, step_size, attack_steps)
        self.inner = InnerPasses()
        order = generator(material.seed, BANK).permutation(len(material.labelled))[:bank]
        self.chosen = material.labelled[torch.from_numpy(order)]
        self.bank = torch.zeros(0)

    @staticmethod
    def n_outputs(settings: Any, n_classes: int) -> int:
        return int(settings.dimensions)

    def learn(self, net: QuantizedNetwork, batch: Batch, rows: Tensor, select: Select) -> Outcome:
        clean, m = batch.images[rows], len(batch.images)
        neighbours = self._current(net, batch.step)
        answers = neighbours.predict(self._inner_outputs(net, clean, rows))
        attacked = self.attack(net, self.inner, clean, lambda seen: neighbours.slope(seen.values, answers), rows, m)
        fooled = neighbours.predict(self._inner_outputs(net, attacked, rows)) != answers
        n = int(fooled.sum())
        metrics = {"attack_success": n / max(len(rows), 1)}
        if n == 0:
            return Outcome(torch.zeros(0), 1.0, 0, updated=False, metrics=metrics)
        keys = torch.cat([rows[fooled], rows[fooled] + m])
        seen, tape = net.run(torch.cat([clean[fooled], attacked[fooled]]), rows=keys)
        losses, gradient = nt_xent(seen.values, self.temperature)
        error, scale = averaged(seen, gradient, 2 * n)
        net.run_back(tape, net.logit_error(error, tape))
        return Outcome(losses, scale, n, metrics=metrics)

    @staticmethod
    def _inner_outputs(net: QuantizedNetwork, images: Tensor, rows: Tensor | None = None) -> Tensor:
        return net.run(images, rows=rows, payer="inner", training=False)[0].values

    def _current(self, net: QuantizedNetwork, step: int) -> Neighbours:
        if not len(self.bank) or step % self.refresh == 0:
            parts = self.material.images[self.chosen].split(self.material.batch_size)
            self.bank = torch.cat([self._inner_outputs(net, part) for part in parts])
        return self._neighbours(self.bank)

    def _neighbours(self, bank: Tensor) -> Neighbours:
        labels = self.material.labels[self.chosen]
        return Neighbours(bank, labels, self.material.n_classes, self.k, self.temperature)

    def _measured(self, net: QuantizedNetwork) -> Neighbours:
        """The neighbours by the network's present outputs, recorded nowhere."""
        return self._neighbours(outputs_of(net, self.material.images[self.chosen]))

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        votes = self._measured(net).votes(outputs_of(net, images))
        share = votes.gather(1, labels.view(-1, 1)).clamp(min=_LEAST_SHARE)
        return float((votes.argmax(1) == labels).double().mean()), float(-share.double().log().mean())

    def details(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """The defence's success rate: of the test instances answered rightly, the share still right when attacked with
        their labels known."""
        neighbours = self._measured(net)
        images, labels = images[: self.tested], labels[: self.tested]
        right = neighbours.predict(outputs_of(net, images)) == labels
        images, labels = images[right], labels[right]
        if not len(images):
            return {"defence_success_rate": None, "attacked": 0}
        with unrecorded(net):
            rows = torch.arange(len(images))
            attacked = self.attack(
                net, InnerPasses(), images, lambda seen: neighbours.slope(seen.values, labels), rows, len(rows)
            )
        held = neighbours.predict(outputs_of(net, attacked)) == labels
        return {"defence_success_rate": float(held.double().mean()), "attacked": len(images)}

    def extra_ram_bytes(self, net: QuantizedNetwork) -> dict[str, int]:
        last = net.network.layers[-1]
        bits = net.plan.for_layer(last.inputs[0]).norm_bits
        return {"bank of neighbours": len(self.chosen) * (-(-last.out_channels * bits // 8) + LABEL_BYTES)}

    def state(self) -> dict[str, Any]:
        return {"inner": self.inner.points}

    def load_state(self, state: dict[str, Any]) -> None:
        self.inner.points = state["inner"]

    def tensors(self) -> dict[str, Tensor]:
        return {"bank": self.bank}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.bank = tensors["bank"]


RECIPE = Adversarial
