"""The sections of an experiment that say what is learned, and from which stream."""

from dataclasses import dataclass
from typing import ClassVar

from qtrain.experiment.options import BELOW_ONE, KEPT, NOT_NEGATIVE, POSITIVE, SHARE, Interval, Section, option

COUNT = Interval(1, 10**9)


@dataclass(frozen=True)
class Stream(Section):
    """The order and the look of what the device meets."""

    PREFIX: ClassVar[str] = "stream."
    FLAG_PREFIX: ClassVar[str] = "--stream-"
    kind: str = option(
        "iid", "order of the stream", flag="--stream", valid=("iid", "correlated", "drifting", "class-incremental")
    )
    run_length: int = option(50, "instances of one class in a row, STC, of kind correlated", valid=COUNT)
    n_tasks: int = option(5, "groups of classes that follow each other in kind class-incremental", valid=COUNT)
    drift: str = option(
        "none",
        "what the deployed domain differs by; in kind drifting it grows over the run",
        valid=("none", "rotation", "noise", "blur", "contrast"),
    )
    severity: float = option(1.0, "strength of the drift; 1: 45 degrees, sigma 1, 2 pixels, contrast 0.2", valid=SHARE)
    scenario: str = option(
        "train", "adapt: deploy a pretrained network and adapt it", flag="--scenario", valid=("train", "adapt")
    )
    pretrain_steps: int = option(
        0, "float32 steps on the undrifted domain before deployment, not billed", flag="--pretrain-steps",
        valid=Interval(0, 10**9),
    )  # fmt: skip


@dataclass(frozen=True)
class SelfAdaptive(Section):
    """Recipe self-adaptive: targets that move from noisy labels towards the predictions (NeurIPS 2020)."""

    PREFIX: ClassVar[str] = "self_adaptive."
    FLAG_PREFIX: ClassVar[str] = "--self-adaptive-"
    alpha: float = option(0.9, "share of the old target kept at each visit", valid=BELOW_ONE)
    start: float = option(0.3, "share of the run after which targets move (paper: 60 of 200 epochs)", valid=SHARE)
    abstain: bool = option(False, "an extra output that says don't know: selective classification")
    trades: float = option(0.0, "weight of the adversarial term of TRADES; 0: none", valid=NOT_NEGATIVE)
    epsilon: float = option(0.03, "largest change of a pixel by the attack of TRADES, 255 being 1", valid=POSITIVE)
    attack_steps: int = option(10, "steps of the attack of TRADES", valid=COUNT)


@dataclass(frozen=True)
class Sinkhorn(Section):
    """Recipe sinkhorn: few labels, the rest allocated by optimal transport (ICML 2021)."""

    PREFIX: ClassVar[str] = "sinkhorn."
    FLAG_PREFIX: ClassVar[str] = "--sinkhorn-"
    allocation: str = option("sinkhorn", "how unlabelled instances get labels", valid=("sinkhorn", "fixmatch"))
    labelled: int = option(64, "labelled instances in each step beside the streamed ones", valid=COUNT)
    bounds: str = option("wilson", "upper bounds of the class shares", valid=("empirical", "wilson", "none"))
    reg: float = option(100.0, "inverse strength of the entropic regularization", valid=POSITIVE)
    tolerance: float = option(0.01, "error of the column sums at which an allocation is done", valid=POSITIVE)
    confidence: float = option(0.95, "least probability that becomes a label in fixmatch", valid=SHARE)
    average: float = option(0.999, "share of the old average of the evaluated weights kept a step", valid=BELOW_ONE)


@dataclass(frozen=True)
class Contrast(Section):
    """Recipe contrast: no labels, a small buffer chosen by contrast score (DAC 2021)."""

    PREFIX: ClassVar[str] = "contrast."
    FLAG_PREFIX: ClassVar[str] = "--contrast-"
    policy: str = option(
        "score", "what stays in the buffer", valid=("score", "fifo", "random", "k-centre", "selective-backprop")
    )
    buffer: int = option(64, "instances in the buffer", valid=Interval(2, 10**6))
    interval: int = option(1, "steps after which a kept instance is scored again", valid=COUNT)
    temperature: float = option(0.1, "temperature of NT-Xent (0.1: SimCLR's best, table 5)", valid=POSITIVE)
    dimensions: int = option(64, "outputs of the network: the projection's dimensions", valid=Interval(2, 10**6))
    probe: int = option(2000, "training instances of the linear probe at most", valid=Interval(10, 10**9))


@dataclass(frozen=True)
class Adversarial(Section):
    """Recipe adversarial: a kNN on the representation made robust without labels (arXiv 1911.06470)."""

    PREFIX: ClassVar[str] = "adversarial."
    FLAG_PREFIX: ClassVar[str] = "--adversarial-"
    neighbours: int = option(75, "neighbours that vote, k", valid=COUNT)
    bank: int = option(1000, "labelled training instances among which neighbours are sought", valid=COUNT)
    refresh: int = option(10, "steps after which the bank's representations are computed again", valid=COUNT)
    epsilon: float = option(0.03, "largest change of a pixel by the attack, 255 being 1", valid=POSITIVE)
    step_size: float = option(0.005, "change of a pixel by one step of the attack, 255 being 1", valid=POSITIVE)
    attack_steps: int = option(10, "steps of the attack", valid=COUNT)
    temperature: float = option(0.1, "temperature of InfoNCE and of the neighbours' votes", valid=KEPT)
    dimensions: int = option(64, "outputs of the network: the representation's dimensions", valid=Interval(2, 10**6))
    tested: int = option(200, "test instances attacked to measure the defence's success", valid=COUNT)
