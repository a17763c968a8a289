"""The sections of an experiment: its options, their defaults, meaning and the values they allow."""

from dataclasses import dataclass
from typing import ClassVar

from hwmodel.errors import shown
from hwmodel.normalization import NORMS
from qtrain.errors import QtrainError
from qtrain.experiment.options import BELOW_ONE, KEPT, NOT_NEGATIVE, POSITIVE, SHARE, Interval, Section, option
from qtrain.formats import names

WIDTH = Interval(2, 16)
PLANS = ("fixed", "float32", "niti8", "banner8")
UPDATES = ("sgd", "shift")
ROLES = ("weight", "activation", "error", "gradient")
COUNT = Interval(0, 10**9)
ROUNDINGS = ("nearest-even", "nearest-away", "floor", "toward-zero", "stochastic")
SCALES = ("dynamic", "delayed", "moving-average", "percentile", "static")


@dataclass(frozen=True)
class Data(Section):
    """What is learned from."""

    PREFIX: ClassVar[str] = "data."
    name: str = option("digits", "digits, mnist, fashion-mnist, cifar10, cifar100 or imagefolder", flag="--data")
    dir: str = option("", "folder that holds the dataset's files", flag="--data-dir")
    augment: bool = option(False, "shift and flip the training images at random")
    flip: bool = option(True, "random views and augmentation may mirror images: not for digits")
    label_noise: float = option(0.0, "share of the training labels replaced by a class drawn at random", valid=SHARE)
    n_labels: int = option(0, "training instances that have a label, equally many a class; 0: all", valid=COUNT)
    val_split: float = option(0.0, "share of the training set kept aside to validate on", valid=BELOW_ONE)


@dataclass(frozen=True)
class Numbers(Section):
    """Number formats: bits and exponents of every stored tensor. Plan "float32" ignores the other keys."""

    PREFIX: ClassVar[str] = "numbers."
    plan: str = option("fixed", "number plan", flag="--numbers", valid=PLANS)
    weight_bits: int = option(8, "bits of the weights that compute", valid=WIDTH)
    activation_bits: int = option(8, "bits of the activations", valid=WIDTH)
    error_bits: int = option(8, "bits of the error maps", valid=WIDTH)
    gradient_bits: int = option(8, "bits of the weight gradients", valid=WIDTH)
    master_bits: int = option(16, "bits of the weights that receive the update", valid=Interval(2, 32))
    momentum_bits: int = option(16, "bits of the momentum", valid=Interval(2, 32))
    accumulator_bits: int = option(
        0, "bits of the sums of products, from 8; 0: 32, of operands above 8 bits 64", valid=Interval(0, 64)
    )
    accumulator: str = option("wrap", "what becomes of sums that need more", valid=("wrap", "saturate"))
    norm_bits: int = option(8, "bits of a convolution's output as stored for a normalization", valid=Interval(2, 32))
    gamma_bits: int = option(16, "bits of a normalization's scale as it computes", valid=Interval(2, 24))
    beta_bits: int = option(16, "bits of a normalization's shift as it computes", valid=Interval(2, 24))
    mean_bits: int = option(24, "bits of a normalization's running mean", valid=Interval(8, 24))
    variance_bits: int = option(24, "bits of its running variance or range", valid=Interval(8, 24))
    weight_format: str = option("fixed", "format of the weights that compute, or any eXmY", valid=names.NAMES)
    activation_format: str = option("fixed", "format of the activations, or any eXmY", valid=names.NAMES)
    error_format: str = option("fixed", "format of the error maps, or any eXmY", valid=names.NAMES)
    gradient_format: str = option("fixed", "format of the weight gradients, or any eXmY", valid=names.NAMES)
    master_format: str = option("fixed", "format of the masters, or any eXmY", valid=names.NAMES)
    momentum_format: str = option("fixed", "format of the momentum, or any eXmY", valid=names.NAMES)
    weight_granularity: str = option(
        "per-tensor", "one exponent a weight tensor, or one an output channel", valid=("per-tensor", "per-channel")
    )
    rounding: str = option("stochastic", "rounding of errors, gradients and updates", valid=ROUNDINGS)
    scale: str = option("delayed", "where the exponents of activations and errors come from", valid=SCALES)
    weight_rounding: str = option("nearest-even", "rounding of the weights that compute", valid=ROUNDINGS)
    activation_rounding: str = option("nearest-even", "rounding of the activations", valid=ROUNDINGS)
    error_rounding: str = option("", "rounding of the error maps; empty: rounding", valid=("", *ROUNDINGS))
    gradient_rounding: str = option("", "rounding of the weight gradients; empty: rounding", valid=("", *ROUNDINGS))
    update_rounding: str = option("", "rounding of masters and momentum; empty: rounding", valid=("", *ROUNDINGS))
    weight_scale: str = option("dynamic", "where the weights' exponents come from", valid=SCALES)
    activation_scale: str = option("", "where the activations' exponents come from; empty: scale", valid=("", *SCALES))
    error_scale: str = option("", "where the error maps' exponents come from; empty: scale", valid=("", *SCALES))
    gradient_scale: str = option("dynamic", "where the weight gradients' exponents come from", valid=SCALES)
    update: str = option("sgd", "sgd, or shift: the gradient shifted by the rate, without momentum", valid=UPDATES)
    bi_precision: bool = option(False, "keep errors in float32; error_bits are those the input errors are made of")

    def cross_check(self) -> None:
        if self.update == "shift" and not self.master_format == self.gradient_format == names.FIXED:
            raise QtrainError("numbers.update (--update) = 'shift': needs master_format and gradient_format fixed")
        if 0 < self.accumulator_bits < 8:
            raise QtrainError(
                f"numbers.accumulator_bits (--accumulator-bits) = {self.accumulator_bits}: must be 0 or 8 to 64"
            )
        if self.master_bits < self.weight_bits:
            raise QtrainError(
                f"numbers.master_bits (--master-bits) = {self.master_bits}: must be at least "
                f"numbers.weight_bits = {self.weight_bits}"
            )
        for role in (*ROLES, "master", "momentum"):
            self._check_format(role)

    def _check_format(self, role: str) -> None:
        """Raise QtrainError unless the role's format exists at its width."""
        key = f"{role}_format"
        name, n_bits = getattr(self, key), getattr(self, f"{role}_bits")
        where = f"numbers.{key} (--{role}-format) = {shown(name)}"
        try:
            names.at(name, n_bits)
        except QtrainError as error:
            raise QtrainError(f"{where}: {error}") from None
        if name != names.FLOAT32 and names.width(name, n_bits) != n_bits:
            own = names.width(name, n_bits)
            raise QtrainError(f"{where}: has {own} bits, numbers.{role}_bits is {n_bits}; give one of them alone")


def check_milestones(schedule: str, milestones: tuple[int, ...], prefix: str, flags: str) -> None:
    """Raise QtrainError unless the milestones of a section's rate ascend and schedule "step" has some."""
    if list(milestones) != sorted(set(milestones)):
        raise QtrainError(f"{prefix}milestones ({flags}milestones): must be ascending, each step once")
    if schedule == "step" and not milestones:
        raise QtrainError(f"{prefix}schedule ({flags}schedule) = 'step': needs {prefix}milestones")


@dataclass(frozen=True)
class Optimizer(Section):
    """Stochastic gradient descent and its schedule."""

    PREFIX: ClassVar[str] = "optimizer."
    lr: float = option(0.02, "learning rate", valid=POSITIVE)
    momentum: float = option(0.9, "momentum", valid=BELOW_ONE)
    weight_decay: float = option(1e-4, "weight decay", valid=NOT_NEGATIVE)
    schedule: str = option(
        "cosine", "learning rate over the run", flag="--lr-schedule", valid=("constant", "cosine", "step")
    )
    milestones: tuple[int, ...] = option(
        (),
        "steps at which schedule step divides the rate by ten",
        flag="--lr-milestones",
        valid=Interval(1, 10**9),
    )

    def cross_check(self) -> None:
        check_milestones(self.schedule, self.milestones, "optimizer.", "--lr-")


@dataclass(frozen=True)
class Train(Section):
    """How long, and which layers."""

    PREFIX: ClassVar[str] = "train."
    epochs: int = option(0, "passes over the training set; 0: the model's and dataset's own", valid=COUNT)
    steps: int = option(0, "mini-batches; 0: as many as the epochs have; the first reached ends it", valid=COUNT)
    batch_size: int = option(64, "instances streamed per step", valid=Interval(1, 2**20))
    layers: str = option("all", "layers trained: globs by commas, or all", flag="--train")
    bias_only: str = option("", "layers of which only biases are trained: globs by commas", flag="--train-bias")
    survival: float = option(
        1.0, "stochastic depth: chance that a step computes the last residual block; the first ones more", valid=KEPT
    )
    norm: str = option("batch", "what the model's batch normalizations become", valid=NORMS)


@dataclass(frozen=True)
class Execution(Section):
    """How the run is carried out and reported; [run] in the file. Only `strict` and `gpu` can change its result."""

    PREFIX: ClassVar[str] = "run."
    devices: tuple[str, ...] = option(
        ("stm32l4r5",), "device to price for", flag="--device", per_item=True, result=False
    )
    kernels: str = option("", "kernel library; empty: the device's own", result=False)
    gpu: bool = option(False, "compute the simulation on a CUDA GPU")
    threads: int = option(0, "threads of the simulator; 0: as many as PyTorch takes", valid=COUNT, result=False)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: each epoch", valid=COUNT, result=False)
    strict: bool = option(False, "make warnings about the numerics errors")
    baseline: bool = option(False, "also train the dense float32 network on the same stream", result=False)
    engine: str = option(
        "auto",
        "how the arithmetic is executed",
        valid=("auto", "torch", "compiled", "brevitas"),
        result=False,
    )
    tensorboard: bool = option(
        False, "also write the metrics as TensorBoard scalars into the run's folder (extra: tensorboard)", result=False
    )
    out: str = option("", "folder of the run; empty: runs/ and the run's id", result=False)
