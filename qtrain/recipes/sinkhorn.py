"""Few labels: Sinkhorn label allocation, and FixMatch's threshold as its baseline.

Tai, Bailis, Valiant, ICML 2021 (arXiv 2102.08622); Sohn et al., FixMatch, NeurIPS 2020 (arXiv 2001.07685).
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qtrain.data.streams import generator
from qtrain.data.views import strong, weak
from qtrain.layers import QuantizedNetwork
from qtrain.layers.loss import cross_entropy
from qtrain.recipes.allocation import Allocation, upper_bounds
from qtrain.recipes.average import WeightAverage
from qtrain.recipes.base import Batch, Material, Outcome, PlainRecipe, Select
from qtrain.recipes.evaluation import classify
from qtrain.recipes.soft_targets import one_hot, part, probabilities, weighted_sum

VIEWS, DRAW = 8, 9
"""Tell the random numbers of views and of the labelled instances' choice from others'."""
_LEAST_P = 1e-12


class Sinkhorn(PlainRecipe):
    """The stream is unlabelled; `labelled` instances that have a label are drawn from memory beside it. A weak view of
    each streamed instance is read by a forward pass alone (payer "inner", the network as deployed) and gets a soft
    label q; the step learns mean CE(labelled, weak views) + mean(-sum q log p(strong view)).

    allocation "sinkhorn": q by transport with the present scalings, then the cost is noted and the scalings are found
    anew, the share rho to be labelled rising linearly from 0 to 1 over the run. "fixmatch": the likeliest class
    where it has `confidence`, else nothing. filter.mean_over "streamed" shrinks the whole update, the labelled's part
    with it. Evaluated are averaged weights (average; 0: the weights themselves). The
    scaling's exponentials are no network pass and not priced: (n + 1)(k + 1) of them an iteration, whose number is in
    the metrics.
    """

    kind: ClassVar[str] = "sinkhorn"
    needs_labels: ClassVar[bool] = False

    def __init__(
        self, material: Material, allocation: str, labelled: int, bounds: str, reg: float, tolerance: float,
        confidence: float, average: float,
    ) -> None:  # fmt: skip
        self.material, self.n_labelled, self.confidence = material, labelled, confidence
        known = material.labels[material.labelled].numpy()
        limits = upper_bounds(known, material.n_classes, bounds)
        self.allocation: Allocation | None = None
        if allocation == "sinkhorn":
            self.allocation = Allocation(len(material.images), limits, reg, tolerance)
        self.average = WeightAverage(average)

    def judge(self, net: QuantizedNetwork, batch: Batch, rows: Tensor) -> Tensor:
        m = len(batch.images)
        p = probabilities(net.run(self._view(batch, rows, 0), rows=rows, payer="uncertain", training=False)[0])
        logits, _ = net.run(self._view(batch, rows, 1), rows=rows + m, payer="uncertain", training=False)
        targets, weights = self._normalized(self._labels(p))
        return cross_entropy(logits, targets)[0] * weights

    def learn(self, net: QuantizedNetwork, batch: Batch, rows: Tensor, select: Select) -> Outcome:
        m = len(batch.images)
        p = probabilities(net.run(self._view(batch, rows, 0), rows=rows, payer="inner", training=False)[0])
        soft = self._labels(p)
        targets, weights = self._normalized(soft)
        chosen = self._draw(batch.step)
        rng = generator(self.material.seed, batch.step, VIEWS, 2)
        labelled = torch.from_numpy(weak(self.material.images[chosen].numpy(), rng, self.material.flip))
        n = len(labelled)
        keys = torch.cat([torch.arange(n) + 2 * m, rows + m])
        logits, tape = net.run(torch.cat([labelled, self._view(batch, rows, 1)]), rows=keys)
        losses = cross_entropy(part(logits, torch.arange(n, n + len(rows))), targets)[0] * weights
        keep = select(losses)
        keep = torch.arange(len(rows)) if keep is None else keep
        whole = torch.cat([torch.arange(n), keep + n])
        if len(whole) < len(keys):
            tape.narrow(whole)
        goals = torch.cat([one_hot(self.material.labels[chosen], self.material.n_classes), targets[keep]])
        shares = torch.cat([torch.full((n,), 1 / n), weights[keep] / max(len(keep), 1)])
        _, error, scale = weighted_sum(part(logits, whole), goals, shares)
        net.run_back(tape, net.logit_error(error, tape))
        metrics = {"labelled_share": float(soft.sum(1).mean())}
        return Outcome(losses, scale, len(keep), metrics=metrics | self._allocate(batch.indices[rows], p, batch.step))

    def _view(self, batch: Batch, rows: Tensor, which: int) -> Tensor:
        """The weak (0) or the strong (1) view of streamed instances."""
        rng = generator(self.material.seed, batch.step, VIEWS, which)
        images = (weak, strong)[which](batch.images.numpy(), rng, self.material.flip)
        return torch.from_numpy(images)[rows]

    def _labels(self, p: Tensor) -> Tensor:
        """Soft labels [n, k] from the weak views' probabilities; rows sum to at most 1."""
        if self.allocation is None:
            best, label = p.max(1)
            return one_hot(label, p.shape[1]) * (best >= self.confidence).float().view(-1, 1)
        return torch.from_numpy(self.allocation.labels(_cost(p))).float()

    def _normalized(self, soft: Tensor) -> tuple[Tensor, Tensor]:
        """(targets that sum to 1, weights): -sum q log p is the weight times a cross-entropy."""
        weights = soft.sum(1)
        column = weights.view(-1, 1)
        return torch.where(column > 0, soft / column.clamp(min=_LEAST_P), 1 / soft.shape[1]), weights

    def _allocate(self, indices: Tensor, p: Tensor, step: int) -> dict[str, float]:
        if self.allocation is None:
            return {}
        self.allocation.cost[indices.numpy()] = _cost(p)
        rho = (step + 1) / self.material.n_steps
        return {"scaling_iterations": float(self.allocation.solve(rho))}

    def _draw(self, step: int) -> Tensor:
        """Indices of the labelled instances of a step: shuffled anew whenever all were used."""
        known = self.material.labelled
        first = step * self.n_labelled
        epochs = range(first // len(known), (first + self.n_labelled - 1) // len(known) + 1)
        order = np.concatenate([generator(self.material.seed, e, DRAW).permutation(len(known)) for e in epochs])
        start = first - epochs[0] * len(known)
        return known[torch.from_numpy(order[start : start + self.n_labelled])]

    def updated(self, net: QuantizedNetwork) -> None:
        if self.average.decay:
            self.average.update(net.model)

    def evaluate(self, net: QuantizedNetwork, images: Tensor, labels: Tensor) -> tuple[float | None, float]:
        with self.average.put_in(net):
            return classify(net, images, labels, lambda logits, wanted: cross_entropy(logits, wanted)[0])

    def extra_ram_bytes(self, net: QuantizedNetwork) -> dict[str, int]:
        held = {"labelled images": self.material.labelled.numel() * self.material.images[0].numel()}
        if self.average.decay:
            held["averaged weights"] = self.average.n_bytes(net.model)
        if self.allocation is not None:
            held["allocation costs"] = self.allocation.cost.nbytes
        return held

    def state(self) -> dict[str, Any]:
        scalings = [] if self.allocation is None else self.allocation.v.tolist()
        return {"n_updates": self.average.n_updates, "scalings": scalings}

    def load_state(self, state: dict[str, Any]) -> None:
        self.average.n_updates = state["n_updates"]
        if self.allocation is not None:
            self.allocation.v = np.array(state["scalings"])

    def tensors(self) -> dict[str, Tensor]:
        found = {f"average.{name}": value for name, value in self.average.weights.items()}
        if self.allocation is not None:
            found["cost"] = torch.from_numpy(self.allocation.cost)
        return found

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        named = {name.removeprefix("average."): value for name, value in tensors.items() if name != "cost"}
        self.average.weights = named
        if self.allocation is not None:
            self.allocation.cost = tensors["cost"].numpy()


def _cost(p: Tensor) -> np.ndarray:
    """-log p, float32 [n, k]."""
    return -torch.log(p.clamp(min=_LEAST_P)).numpy()


RECIPE = Sinkhorn
