"""What is known of each recipe before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RecipeInfo:
    """One recipe. `cost_factor`: multiply-accumulates of a step at the default settings over those of a supervised
    step on as many streamed instances, for a network whose three passes cost alike; `cost` says what it is made of."""

    name: str
    line: str
    needs: str
    paper: str
    cost_factor: float
    cost: str


RECIPES = (
    RecipeInfo("supervised", "cross-entropy with the label", "labels", "-", 1.0, "forward, error, gradient"),
    RecipeInfo(
        "self-adaptive", "targets move from noisy labels towards the predictions; may abstain", "noisy labels",
        "Huang, Zhang, Zhang, NeurIPS 2020, arXiv 2002.10319", 1.0, "as supervised; TRADES adds as much and an attack",
    ),
    RecipeInfo(
        "sinkhorn", "labels allocated to weak views by optimal transport, learned on strong views",
        "few labels, many instances without", "Tai, Bailis, Valiant, ICML 2021, arXiv 2102.08622", 7 / 3,
        "a forward on the weak views, a step on the strong ones and on as many labelled (64 each)",
    ),
    RecipeInfo(
        "contrast", "a small buffer of the instances whose views differ most; NT-Xent", "no labels",
        "Wu et al., DAC 2021, arXiv 2106.03796", 10 / 3,
        "two forwards to score buffer and segment, a step on two views of the buffer",
    ),
    RecipeInfo(
        "adversarial", "a kNN on the representation, made robust by InfoNCE between clean and attacked", "no labels "
        "but the neighbours'", "Chen et al., arXiv 1911.06470", 10.0,
        "forwards before and after ten attack steps of forward and error, the bank's forward, a step on the pairs",
    ),
)  # fmt: skip
