"""The early instance filter: a small network predicts, before the main forward, whose loss will be high.

Wu, Wang, Shi, Hu 2020, "Enabling On-Device CNN Training by Self-Supervised Instance Filtering and Error Map Pruning",
arXiv 2007.03213, sections III-A and III-B; equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from qtrain.filters.base import Choice, chance, nothing, positions
from qtrain.filters.dead import DeadWatch
from qtrain.filters.threshold import Counts, LossThreshold
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.loss import cross_entropy, entropy
from qtrain.layers.network import QuantizedNetwork
from qtrain.layers.quantizer import Clock

LOW, HIGH = 0, 1
"""Outputs of the filter network."""
START_WEIGHTS = 2.0**-6
START_BIAS = 0.1
"""Of an untrained filter: differences between instances are small beside a bias that gives "high" 52.5 %."""


def start_undecided(network: QuantizedNetwork) -> None:
    """Make an untrained filter network keep everything, unsure of it, until it has learned: its last layer's weights
    are shrunk and its bias favours "high". Random weights may be sure of "low" from the start. To be called before an
    optimizer takes the weights. (Not stated by the paper, whose curves start with
    all instances kept.)"""
    last = network.units[-2].module
    with torch.no_grad():
        last.weight.mul_(START_WEIGHTS)
        if last.bias is not None:
            last.bias.zero_()
            last.bias[HIGH] = START_BIAS


class Optimizer(Protocol):
    """What steps the filter network and records its update."""

    def step(self, clock: Clock, scale: float = 1.0) -> None: ...


class InstanceFilter:
    """Keeps the instances predicted high; learns from the main network's losses of the kept and the uncertain.

    Uncertain are dropped instances whose prediction has an entropy (4) above `entropy_threshold` nats, and a share
    `audit` of the others, drawn at random: without them a filter that is sure of "low" gets no more labels and stays
    dead for ever (the audit is ours; it costs one main forward and one filter backward an instance). Its loss is the
    cross-entropy weighted by the label's class, w_H = 1/rate and w_L = 1/(1 - rate), normalised over the mini-batch
    (7). `weighted`, `uncertainty` and `adaptive` switch these parts off. Where both outputs are equal the instance is
    kept. Every default is ours (the paper states none): chosen on validation splits of digits and MNIST for runs of
    hundreds to thousands of steps, with a filter that learns slowly enough not to swing between everything and nothing.
    """

    kind: ClassVar[str] = "instance"

    def __init__(
        self, network: QuantizedNetwork, optimizer: Optimizer, seed: int, rate: float = 0.2, alpha_up: float = 1.02,
        alpha_down: float = 0.98, window: int = 10, threshold: float = 0.0, entropy_threshold: float = 0.69,
        adaptive: bool = True, weighted: bool = True, uncertainty: bool = True, steer: str = "true-high",
        audit: float = 0.05, warn: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.network: QuantizedNetwork = network
        self.optimizer, self.seed, self.rate = optimizer, seed, rate
        self.entropy_threshold, self.audit = entropy_threshold, audit
        self.weighted, self.uncertainty = weighted, uncertainty
        self.threshold = LossThreshold(rate, alpha_up, alpha_down, window, threshold, adaptive, steer)
        self.dead = DeadWatch(warn)

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        """Filter forward on all of images [m, C, H, W]; context: (logits, tape)."""
        if not len(images):
            return Choice(nothing(images), nothing(images))
        self.network.step = step
        logits, tape = self.network.run(images, payer="filter")
        kept = logits.values[:, HIGH] >= logits.values[:, LOW]
        sampled = chance(len(images), self.seed, step, "filter.audit", logits.values) < self.audit
        if self.uncertainty:
            sampled |= entropy(logits) > self.entropy_threshold
        return Choice(positions(kept), positions(sampled & ~kept), (logits, tape))

    def backward_rows(self, losses: Tensor) -> Tensor | None:
        return None

    def learn(self, choice: Choice, kept_losses: Tensor, uncertain_losses: Tensor, step: int) -> dict[str, float]:
        """Label by the threshold (1), train the filter network on the labelled, adapt the threshold (2, 3)."""
        device = choice.kept.device  # an empty tensor of losses may stand anywhere
        high = self.threshold.high(torch.cat([kept_losses.to(device), uncertain_losses.to(device)]))
        rows, order = torch.cat([choice.kept, choice.uncertain]).sort()
        metrics = {"filter_loss": self._train(choice.context, rows, high[order].long(), step)} if len(rows) else {}
        n_kept, m = len(choice.kept), len(choice.context[0].values) if choice.context else 0
        counts = Counts(m, n_kept, len(choice.uncertain), int(high.sum()), int(high[:n_kept].sum()))
        self.threshold.update(counts)
        dead = self.dead.update(m, n_kept)
        shares = {"kept_share": n_kept / max(m, 1), "uncertain_share": counts.uncertain / max(m, 1)}
        return metrics | shares | self.threshold.metrics() | {"dead": float(dead)}

    def _train(self, context: Any, rows: Tensor, labels: Tensor, step: int) -> float:
        """One step of the filter network on `rows` of its mini-batch; returns the mean loss."""
        logits, tape = context
        if len(rows) < len(logits.values):
            tape.narrow(rows)
            logits = FixedTensor(logits.values[rows], logits.exponent)
        weights = None
        if self.weighted:
            weights = torch.where(labels == HIGH, 1 / self.rate, 1 / (1 - self.rate)).to(logits.values.dtype)
        losses, error, scale = cross_entropy(logits, labels, weights)
        self.network.run_back(tape, self.network.logit_error(error, tape))
        self.optimizer.step(Clock(self.network.plan.seed, step), scale)
        return float(losses.mean())

    def state(self) -> dict[str, Any]:
        return {"threshold": self.threshold.state(), "dead": self.dead.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.threshold.load_state(state["threshold"])
        self.dead.load_state(state["dead"])

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        pass


FILTER = InstanceFilter
