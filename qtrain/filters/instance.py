"""The early instance filter: a small network predicts, before the main forward, whose loss will be high.

Wu, Wang, Shi, Hu 2020, "Enabling On-Device CNN Training by Self-Supervised Instance Filtering and Error Map Pruning",
arXiv 2007.03213, sections III-A and III-B; equation numbers are the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from qtrain.errors import QtrainError
from qtrain.filters.base import Choice, PlainFilter, chance, nothing, positions
from qtrain.filters.dead import DeadWatch
from qtrain.filters.recent import N_LOSSES, N_SCORES, Chances, LossQuantile, drawn
from qtrain.filters.threshold import Counts, LossThreshold
from qtrain.formats.fixed import FixedTensor
from qtrain.layers.loss import cross_entropy
from qtrain.layers.network import QuantizedNetwork
from qtrain.layers.quantizer import Clock
from qtrain.layers.tape import Tape

LOW, HIGH = 0, 1
"""Outputs of the filter network."""
START_WEIGHTS = 2.0**-6
START_BIAS = 0.1
"""Of an untrained filter: differences between instances are small beside a bias that gives "high" 52.5 %."""
ALMOST_NONE = 1e-9
"""Stands for a share of zero where one is divided by it."""


def margin(entropy: float) -> float:
    """The log odds x > 0 at which a prediction of two classes has `entropy` nats (4); 0 from ln 2 on, infinite at 0.

    H(x) = ln(1 + e^-x) + x / (1 + e^x) falls from ln 2 to 0, so that entropy > H(x) where the log odds are nearer to
    0 than x: comparing them is the paper's rule without a softmax.
    """
    if entropy >= math.log(2):
        return 0.0
    if entropy <= 0:
        return math.inf
    low, high = 0.0, 64.0
    for _ in range(64):
        x = (low + high) / 2
        above = math.log1p(math.exp(-x)) + x / (1 + math.exp(x)) > entropy
        low, high = (x, high) if above else (low, x)
    return low


def start_undecided(network: QuantizedNetwork) -> None:
    """Make an untrained filter network keep everything, unsure of it, until it has learned: the weights of the last
    layer that has some are shrunk and its bias favours "high". Random weights may be sure of "low" from the start. To
    be called before an optimizer takes the weights. (Not stated by the paper, whose curves start with all instances
    kept.) Raises QtrainError for a network with other than two outputs."""
    name, n_outputs = network.network.name, network.units[-2].layer.n_out
    if n_outputs != 2:
        raise QtrainError(f"filter network {name} has {n_outputs} outputs; give one with two, for low and high losses")
    modules = (m for unit in network.units for m in getattr(unit, "modules", [getattr(unit, "module", None)]))
    *_, last = (m for m in modules if isinstance(getattr(m, "weight", None), nn.Parameter))
    with torch.no_grad():
        last.weight.mul_(START_WEIGHTS)
        if last.bias is not None:
            last.bias.zero_()
            last.bias[HIGH:] = START_BIAS  # of one channel, whose two pixels are the outputs, there is no such bias


class Optimizer(Protocol):
    """What steps the filter network and records its update."""

    def step(self, clock: Clock, scale: float = 1.0) -> None: ...


class Seen(NamedTuple):
    """A mini-batch of m as the filter saw it: its output, and how its losses come to be known."""

    logits: FixedTensor
    tape: Tape
    weights: Tensor  # [m] how many instances each stands for where its loss is known: 1 / P(kept or labelled)
    label_chances: Tensor  # [m] P(labelled), given that it is dropped


class InstanceFilter(PlainFilter):
    """Keeps the instances predicted high; learns from the main network's losses of the kept and the uncertain.

    Its loss is the cross-entropy weighted by the label's class, w_H = 1/rate and w_L = 1/(1 - rate), normalised over
    the mini-batch (7). A share `audit` of the dropped, drawn at random, is labelled by a main forward: without them a
    filter that is sure of "low" gets no more labels and stays dead for ever (ours; the cost is counted).

    `steer` "true-high" is the paper's rule: kept where P(high) >= 1/2, T_l by (2, 3), and the dropped whose prediction
    has an entropy (4) above `entropy_threshold` nats labelled as well; "kept" puts the kept share in the place of R_TH.
    "quantile" (ours, the default) keeps the share `rate`, drawn with a chance that grows with the score's rank, and
    labels as high the share `rate` with the highest losses (qtrain.filters.recent); what is drawn by chance needs no
    uncertainty sampling. `weighted`, `uncertainty` and `adaptive` switch parts off. How the defaults were chosen:
    benchmarks/results/paper_settings.md.
    """

    kind: ClassVar[str] = "instance"

    def __init__(
        self, network: QuantizedNetwork, optimizer: Optimizer, seed: int, rate: float = 0.4, alpha_up: float = 1.02,
        alpha_down: float = 0.98, window: int = 10, threshold: float = 0.0, entropy_threshold: float = 0.69,
        adaptive: bool = True, weighted: bool = True, uncertainty: bool = True, steer: str = "quantile",
        audit: float = 0.05, warn: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.network: QuantizedNetwork = network
        self.optimizer, self.seed, self.rate = optimizer, seed, rate
        self.margin, self.audit = margin(entropy_threshold), audit
        self.weighted, self.uncertainty = weighted, uncertainty
        quantile = steer == "quantile"
        self.chances = Chances(rate if quantile else None)
        self.threshold = (
            LossQuantile(rate, window, threshold, adaptive)
            if quantile
            else LossThreshold(rate, alpha_up, alpha_down, window, threshold, adaptive, steer)
        )
        self.dead = DeadWatch(warn)

    def choose(self, images: Tensor, labels: Tensor | None, step: int) -> Choice:
        """Filter forward on all of images [m, C, H, W]; context: what was Seen."""
        m = len(images)
        if not m:
            return Choice(nothing(images), nothing(images))
        self.network.step = step
        logits, tape = self.network.run(images, payer="filter")
        scores = (logits.values[:, HIGH].double() - logits.values[:, LOW].double()).cpu()
        chances = self.chances.of(scores, chance(m, self.seed, step, "filter.tie", scores), self.threshold.confidence)
        kept = drawn(chances, chance(1, self.seed, step, "filter.keep", scores))
        label_chances = torch.full_like(scores, self.audit)
        if self.uncertainty and self.chances.share is None:
            label_chances[scores.abs() < self.margin] = 1.0
        labelled = chance(m, self.seed, step, "filter.audit", scores) < label_chances
        weights = 1 / (chances + (1 - chances) * label_chances).clamp(min=ALMOST_NONE)
        return Choice(positions(kept), positions(labelled & ~kept), Seen(logits, tape, weights, label_chances))

    def learn(self, choice: Choice, kept_losses: Tensor, uncertain_losses: Tensor, step: int) -> dict[str, float]:
        """Label by the threshold (1), train the filter network on the labelled, adapt the threshold (2, 3)."""
        device = choice.kept.device  # an empty tensor of losses may stand anywhere
        n_kept, m = len(choice.kept), len(choice.context.logits.values) if choice.context else 0
        losses = torch.cat([kept_losses.to(device), uncertain_losses.to(device)])
        weights = torch.ones(len(losses), dtype=torch.float64, device=device)
        if choice.context:
            weights = choice.context.weights[torch.cat([choice.kept, choice.uncertain])]
        high = self.threshold.high(losses, weights, m)
        rows, order = torch.cat([choice.kept, choice.uncertain]).sort()
        metrics = {"filter_loss": self._train(choice.context, rows, high[order].long(), step)} if len(rows) else {}
        for n_sorted in (len(self.chances.recent), self.threshold.n_sorted):
            self.network.record_ranking(n_sorted)
        self.threshold.update(Counts(m, n_kept, int(high[:n_kept].sum()), self._missed(choice, high[n_kept:])))
        dead = self.dead.update(m, n_kept)
        shares = {"kept_share": n_kept / max(m, 1), "uncertain_share": len(choice.uncertain) / max(m, 1)}
        return metrics | shares | self.threshold.metrics() | {"dead": float(dead)}

    def _missed(self, choice: Choice, high: Tensor) -> float | None:
        """How many of the dropped have a high loss, from the labels `high` [u] of the uncertain: given what was kept,
        each stands for 1 / P(labelled). None where some are never labelled."""
        if not choice.context:
            return 0.0
        if not self.audit and len(choice.kept) + len(choice.uncertain) < len(choice.context.label_chances):
            return None
        return float((high / choice.context.label_chances[choice.uncertain]).sum())

    def _train(self, seen: Seen, rows: Tensor, labels: Tensor, step: int) -> float:
        """One step of the filter network on `rows` of its mini-batch; returns the mean loss."""
        logits, tape = seen.logits, seen.tape
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

    def extra_ram_bytes(self) -> dict[str, int]:
        """Of the rule by rank the recent scores, losses and weights, in 16 bits each (at most all losses are known)."""
        return {} if self.chances.share is None else {"filter's recent": 2 * (N_SCORES + 2 * N_LOSSES)}

    def state(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold.state(),
            "scores": self.chances.recent.state(),
            "dead": self.dead.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.threshold.load_state(state["threshold"])
        self.chances.recent.load_state(state["scores"])
        self.dead.load_state(state["dead"])


FILTER = InstanceFilter
