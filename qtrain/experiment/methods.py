"""The sections of an experiment that choose what is skipped: instances and parts of error maps."""

from dataclasses import dataclass
from typing import ClassVar

from qtrain.errors import QtrainError
from qtrain.experiment.options import (
    BELOW_ONE,
    KEPT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Interval,
    Section,
    option,
)
from qtrain.experiment.sections import check_milestones


@dataclass(frozen=True)
class Filter(Section):
    """Which instances to train on (arXiv 2007.03213 for kind "instance")."""

    PREFIX: ClassVar[str] = "filter."
    FLAG_PREFIX: ClassVar[str] = "--filter-"
    kind: str = option(
        "instance",
        "which instances to train on",
        flag="--filter",
        valid=("instance", "none", "ohem", "selective-backprop", "smb", "smd", "random"),
    )
    network: str = option(
        "", "filter network, in the numbers of [numbers] alone (no [layers] rules); empty: chosen by the model"
    )
    rate: float = option(0.4, "share kept (steer true-high: R_set, true-high instances); 1 keeps all", valid=KEPT)
    alpha_up: float = option(
        1.02,
        "factor on the loss threshold while too many instances are true-high",
        valid=Interval(1, 10, low_open=True),
    )
    alpha_down: float = option(
        0.98,
        "factor on the loss threshold while too few instances are true-high",
        valid=Interval(0, 1, low_open=True, high_open=True),
    )
    window: int = option(
        10,
        "mini-batches over which the true-high share is taken",
        valid=Interval(1, 10**6),
    )
    threshold: float = option(
        0.0,
        "loss threshold at the start; 0: a tenth of the first losses",
        valid=NOT_NEGATIVE,
    )
    entropy_threshold: float = option(
        0.69,
        "entropy in nats above which a dropped instance is uncertain (two classes: at most 0.693)",
        valid=NOT_NEGATIVE,
    )
    adaptive: bool = option(True, "adapt the loss threshold")
    weighted: bool = option(True, "weight the filter's loss by class")
    uncertainty: bool = option(True, "label uncertain instances too (not with steer quantile)")
    steer: str = option(
        "quantile",
        "quantile: rate is the share kept; true-high, the paper's rule, or kept: alpha moves the loss threshold",
        valid=("quantile", "true-high", "kept"),
    )
    audit: float = option(
        0.05,
        "share of dropped instances labelled anyway, against a dead filter; costs (1 - share kept) x audit of a "
        "forward pass per instance",
        valid=SHARE,
    )
    lr: float = option(0.02, "learning rate of the filter network", valid=POSITIVE)
    momentum: float = option(0.5, "momentum of the filter network", valid=BELOW_ONE)
    schedule: str = option("constant", "the filter's rate over the run", valid=("constant", "cosine", "step"))
    milestones: tuple[int, ...] = option(
        (), "steps at which schedule step halves the filter's rate", valid=Interval(1, 10**9)
    )
    mean_over: str = option(
        "kept", "what the sum of the losses that go backward is divided by: their number, or the mini-batch's",
        valid=("kept", "streamed"),
    )  # fmt: skip
    keep: float = option(0.5, "share kept by ohem, selective-backprop, smb, smd and random", valid=KEPT)

    def cross_check(self) -> None:
        check_milestones(self.schedule, self.milestones, self.PREFIX, self.FLAG_PREFIX)


@dataclass(frozen=True)
class Prune(Section):
    """Which part of an error map to keep."""

    PREFIX: ClassVar[str] = "prune."
    FLAG_PREFIX: ClassVar[str] = "--prune-"
    kind: str = option(
        "channel",
        "error-map pruning",
        flag="--prune",
        valid=("channel", "none", "stochastic", "channel+stochastic"),
    )
    keep: float = option(0.6, "share of an error map's channels kept", valid=KEPT)
    gamma_weight: float = option(
        0.0,
        "weight of a channel's weights in its importance",
        valid=NOT_NEGATIVE,
    )
    gamma_error: float = option(1.0, "weight of a channel's error in its importance", valid=NOT_NEGATIVE)
    rate: float = option(0.9, "share of error elements pruned stochastically", valid=BELOW_ONE)
    window: int = option(
        4,
        "steps from which the pruning threshold is predicted",
        valid=Interval(1, 10**6),
    )

    def cross_check(self) -> None:
        if self.gamma_weight == self.gamma_error == 0:
            raise QtrainError("prune.gamma_weight and prune.gamma_error are both 0: give one a positive value")
