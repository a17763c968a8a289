"""Self-adaptive training: targets that move from noisy labels towards what the network predicts.

Huang, Zhang, Zhang, "Self-Adaptive Training: beyond Empirical Risk Minimization", NeurIPS 2020 (arXiv 2002.10319);
selective classification and the extension of TRADES from the same paper.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from qtrain.data.streams import generator
from qtrain.formats.fixed import FixedTensor
from qtrain.layers import QuantizedNetwork
from qtrain.layers.inner import InnerPasses
from qtrain.layers.loss import cross_entropy
from qtrain.recipes.attack import linf_attack
from qtrain.recipes.base import Batch, Material, Outcome, PlainRecipe, Select
from qtrain.recipes.evaluation import classify, outputs
from qtrain.recipes.soft_targets import divergence, one_hot, part, probabilities

COVERAGES = (1.0, 0.95, 0.9, 0.85, 0.8)
TARGET_BYTES = 4
"""Moving targets are kept as float32."""
START = 7
"""Tells the random numbers of the attack's start from others'."""
STEP_SHARE = 0.25
"""A step of TRADES' attack, share of epsilon (its authors: 0.007 of 0.031)."""


class SelfAdaptive(PlainRecipe):
    """t <- alpha t + (1 - alpha) p at each visit once `start` of the run is over; the loss of the mini-batch is
    sum_i w_i CE(t_i, p_i) / sum_i w_i with w = max_j t_j. Targets begin as the given labels.

    With `abstain` the network has one more output c, p is taken over the classes alone, and the loss of an instance is
    -[t_y log q_y + (1 - t_y) log q_c]. With `trades` > 0 the loss gains trades KL(p(x') || p(x)), x' found by an attack
    that makes it large; that term is computed in float at the outputs.
    """

    kind: ClassVar[str] = "self-adaptive"

    def __init__(
        self, material: Material, alpha: float, start: float, abstain: bool, trades: float, epsilon: float,
        attack_steps: int,
    ) -> None:  # fmt: skip
        self.alpha, self.abstain, self.trades, self.n_classes = alpha, abstain, trades, material.n_classes
        self.first_moved = start * material.n_steps
        self.targets = one_hot(material.labels, material.n_classes)
        self.attack = linf_attack(material, epsilon, STEP_SHARE * epsilon, attack_steps)
        self.inner = InnerPasses()
        self.seed = material.seed

    @staticmethod
    def n_outputs(settings: Any, n_classes: int) -> int:
        return n_classes + settings.abstain

    def judge(self, net: QuantizedNetwork, batch: Batch, rows: Tensor) -> Tensor:
        logits, _ = net.run(batch.images[rows], rows=rows, payer="uncertain", training=False)
        targets, _ = self._goals(self.targets[batch.indices[rows]], batch.labels[rows])
        return cross_entropy(logits, targets)[0]

    def learn(self, net: QuantizedNetwork, batch: Batch, rows: Tensor, select: Select) -> Outcome:
        clean = batch.images[rows]
        attacked = self._attacked(net, batch, rows) if self.trades else None
        everything = clean if attacked is None else torch.cat([clean, attacked])
        keys = rows if attacked is None else torch.cat([rows, rows + len(batch.images)])
        logits, tape = net.run(everything, rows=keys)
        n = len(rows)
        natural = part(logits, torch.arange(n))
        targets = self._moved(batch.indices[rows], natural, batch.step)
        goals, weights = self._goals(targets, batch.labels[rows])
        losses = cross_entropy(natural, goals)[0]
        keep = select(losses)
        keep = torch.arange(n) if keep is None else keep
        if not len(keep):
            return Outcome(losses, 1.0, 0, updated=False)
        whole = keep if attacked is None else torch.cat([keep, keep + n])
        if len(whole) < len(everything):
            tape.narrow(whole)
        _, error, scale = cross_entropy(part(logits, keep), goals[keep], None if weights is None else weights[keep])
        if attacked is not None:
            at_attacked, at_clean = divergence(logits.values[keep + n], logits.values[keep])
            weight = self.trades / len(keep) / scale
            error = torch.cat([error + weight * at_clean, weight * at_attacked])
        net.run_back(tape, net.logit_error(error, tape))
        return Outcome(losses, scale, len(keep), metrics={"target_confidence": float(targets.amax(1).mean())})

    def _moved(self, indices: Tensor, logits: FixedTensor, step: int) -> Tensor:
        """The targets [n, classes] of these instances after their visit."""
        if step >= self.first_moved:
            p = probabilities(logits, self.n_classes)
            self.targets[indices] = self.alpha * self.targets[indices] + (1 - self.alpha) * p
        return self.targets[indices]

    def _goals(self, targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the outputs should be [n, outputs], and the instances' weights [n] (None: equal)."""
        if not self.abstain:
            return targets, targets.amax(1)
        trusted = targets.gather(1, labels.view(-1, 1))
        return torch.cat([one_hot(labels, self.n_classes) * trusted, 1 - trusted], 1), None

    def _attacked(self, net: QuantizedNetwork, batch: Batch, rows: Tensor) -> Tensor:
        images, m = batch.images[rows], len(batch.images)
        clean, _ = net.run(images, rows=rows, payer="inner", training=False)
        drawn = generator(self.seed, batch.step, START).uniform(-1, 1, images.shape)
        start = images + self.attack.epsilon * torch.from_numpy(drawn).to(images.dtype)
        return self.attack(
            net, self.inner, images, lambda seen: divergence(seen.values, clean.values)[0], rows, m, start
        )

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        return classify(net, images, labels, lambda q, wanted: cross_entropy(q, wanted)[0], self.n_classes)

    def details(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Error among the instances it is surest of, at each coverage."""
        q = F.softmax(outputs(net, images).float(), 1)
        doubt = q[:, -1] if self.abstain else 1 - q.amax(1)
        wrong = (q[:, : self.n_classes].argmax(1) != labels).double()[doubt.argsort(stable=True)]
        table = {f"{c:g}": float(wrong[: max(1, round(c * len(wrong)))].mean()) for c in COVERAGES}
        return {"selective_error": table}

    def extra_ram_bytes(self, net: QuantizedNetwork) -> dict[str, int]:
        return {"moving targets": self.targets.numel() * TARGET_BYTES}

    def state(self) -> dict[str, Any]:
        return {"inner": self.inner.points}

    def load_state(self, state: dict[str, Any]) -> None:
        self.inner.points = state["inner"]

    def tensors(self) -> dict[str, Tensor]:
        return {"targets": self.targets}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.targets = tensors["targets"]


RECIPE = SelfAdaptive
