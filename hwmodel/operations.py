"""The words the simulator and the pricing share: a Layer's shape, the Widths of its numbers, and the Op.

An Op is one pass of one layer over one batch: what was done, on what shapes, at which bits, charged to whom. It says
nothing of devices; `hwmodel.kernels` turns it into the kernels a library would run.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwmodel.errors import HwmodelError, shown, unknown

MAC_KINDS = ("conv", "linear")
"""Kinds with a weight matrix: their passes are sums of products."""
NORM_KINDS = ("batchnorm", "rangenorm", "groupnorm", "frozennorm")
"""Normalizations: by a batch's mean and variance (Ioffe & Szegedy 2015), by its mean and range (Banner et al. 2018), by
an instance's groups of channels (Wu & He 2018), by statistics that no longer change."""
KINDS = (
    *MAC_KINDS,
    *NORM_KINDS,
    "activation",
    "add",
    "fork",
    "maxpool",
    "avgpool",
    "shortcut",
    "input",
    "loss",
)
"""fork: one value read by several layers (backward: their errors are summed); shortcut: strided copy with zero
channels (ResNet option A); input: the image is put into the activation format."""
PRUNING = ("select", "thin")
"""Passes that prune an error map: its channels are ranked; its small elements become zero or the threshold."""
PHASES = ("forward", "error", "gradient", "update", *PRUNING, "rank")
"""rank: a filter sorts scores or losses, `batch` of them, to choose instances; of its loss layer."""
PAYERS = ("main", "filter", "uncertain", "inner")
"""uncertain: the main network's forward on dropped instances the filter is unsure of; inner: an attack's passes."""
TRAINS = ("all", "bias", "none")
REPORT_PHASES = (
    "forward", "error", "gradient", "update", "quantize", *PRUNING,
    "filter_forward", "filter_backward", "uncertain_forward",
)  # fmt: skip
MAX_CHANNELS, MAX_SIDE, MAX_STRIDE = 2**24, 2**16, 128
"""Bounds of a layer's shape: far beyond any network, small enough that every sum is exact and no pricing loop long."""
FLOAT_BITS = 32
STOCHASTIC_ROLES = ("weight", "activation", "error", "gradient", "update")
"""What may be rounded stochastically; updates are masters and momentum."""
ALIGNMENT_BITS = 8
"""Most bits by which the exponents of a layer's channels differ: an aligned 8-bit weight fits a 16-bit word."""
COPIES = ("maxpool", "shortcut", "fork")
"""Kinds whose output values are input values: nothing is requantized in the forward pass."""


def accumulator_bits(operand_bits: int) -> int:
    """Bits that libraries give the sums of products: 32 of bytes, 64 of wider operands (CMSIS-NN's s8 and s16
    kernels)."""
    return 32 if operand_bits <= 8 else 64


@dataclass(frozen=True, slots=True)
class Widths:
    """Bits of each role of a layer's numbers; 32 with `floating` means float32."""

    weight_bits: int = 8
    activation_bits: int = 8
    error_bits: int = 8
    gradient_bits: int = 8
    master_bits: int = 16
    momentum_bits: int = 16
    norm_bits: int = 8  # the convolution's output as stored for a following normalization
    accumulator_bits: int = 32
    stochastic: tuple[str, ...] = ("error", "gradient", "update")  # of STOCHASTIC_ROLES, those rounded so
    floating: bool = False
    gamma_bits: int = 16  # a normalization's scale and shift as they compute
    beta_bits: int = 16
    mean_bits: int = 24  # and its running statistics
    variance_bits: int = 24
    weight_alignment: int = 0  # bits by which weights widen where the exponents of their output channels meet
    bi_precision: bool = False  # errors lie in float32; their error_bits are a copy's, for the input error

    @property
    def stored_error_bits(self) -> int:
        """Bits of an error map in memory, and as the weight gradient reads it."""
        return FLOAT_BITS if self.bi_precision else self.error_bits

    @classmethod
    def uniform(cls, bits: int) -> Widths:
        """Weights, activations, errors and gradients at `bits` (2..16), or float32 everywhere (32)."""
        if bits == 32:
            return cls(32, 32, 32, 32, 32, 32, 32, 32, (), True, 32, 32, 32, 32)
        if not 2 <= bits <= 16:
            raise HwmodelError(f"bits {bits} is not supported; use 2 to 16, or 32 for float32")
        return cls(
            bits, bits, bits, bits, master_bits=max(16, bits), norm_bits=max(8, bits),
            accumulator_bits=accumulator_bits(bits),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layer:
    """Shape of one layer for one instance. Vectors are channels with height = width = 1."""

    name: str
    kind: str
    inputs: tuple[str, ...]  # names of the layers whose output it reads
    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel_height: int = 1
    kernel_width: int = 1
    stride_height: int = 1
    stride_width: int = 1
    groups: int = 1
    bias: bool = False
    activation: str = "none"  # fused into this layer's output: none, relu, relu6
    normalized: bool = False  # its output feeds a normalization only, and is stored at norm_bits

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise HwmodelError(f"layer {shown(self.name)}: " + unknown("kind", self.kind, KINDS))
        for field in ("in_channels", "in_height", "in_width", "out_channels", "out_height", "out_width",
                      "kernel_height", "kernel_width", "stride_height", "stride_width", "groups"):  # fmt: skip
            high = MAX_CHANNELS if field.endswith("channels") or field == "groups" else MAX_SIDE
            if not 1 <= getattr(self, field) <= high:
                raise HwmodelError(
                    f"layer {shown(self.name)}: {field} is {shown(getattr(self, field))}; it must be 1 to {high}"
                )
        if self.kind in MAC_KINDS and max(self.stride_height, self.stride_width) > MAX_STRIDE:
            raise HwmodelError(f"layer {shown(self.name)}: its stride must be at most {MAX_STRIDE}")
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise HwmodelError(f"layer {shown(self.name)}: groups {self.groups} does not divide its channels")

    @property
    def n_in(self) -> int:
        """Elements of one instance's input."""
        return self.in_channels * self.in_height * self.in_width

    @property
    def n_out(self) -> int:
        """Elements of one instance's output."""
        return self.out_channels * self.out_height * self.out_width

    @property
    def reduction(self) -> int:
        """Products summed into one forward output: channels of the group x kernel."""
        return self.in_channels // self.groups * self.kernel_height * self.kernel_width

    @property
    def n_weights(self) -> int:
        """Weights of a conv or linear layer (without bias); scale parameters of a normalization."""
        if self.kind in MAC_KINDS:
            return self.out_channels * self.reduction
        return self.out_channels if self.kind in NORM_KINDS else 0

    @property
    def n_parameters(self) -> int:
        """Weights and biases (a normalization's shift counts as its bias)."""
        return self.n_weights + (self.out_channels if self.bias or self.kind in NORM_KINDS else 0)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one instance's forward pass; padding counted; 0 unless conv or linear."""
        return self.n_out * self.reduction if self.kind in MAC_KINDS else 0


@dataclass(frozen=True, slots=True)
class Op:
    """One pass of one layer over `batch` instances.

    `kept_channels` of the output error map take part in the error and gradient passes (error-map pruning);
    `parameter_terms` counts the multiply-accumulates per parameter of an update (1, +1 momentum, +1 weight decay), and
    per weight of a channel selection (1 where it looks at the weights; its batch is 0 where it looks at them alone);
    `trains` says which parameters learn: all, bias (the weights are frozen) or none; frozen weights may lie in flash.
    Of a layer whose weights learn only the first `trained_channels` output channels may do so (0: all of them).
    """

    layer: Layer
    widths: Widths
    phase: str
    payer: str
    batch: int
    kept_channels: int
    trains: str = "all"
    parameter_terms: int = 0
    trained_channels: int = 0

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise HwmodelError(f"layer {shown(self.layer.name)}: " + unknown("phase", self.phase, PHASES))
        if self.trains not in TRAINS:
            raise HwmodelError(f"layer {shown(self.layer.name)}: " + unknown("trains", self.trains, TRAINS))
        if self.payer not in PAYERS:
            raise HwmodelError(f"layer {shown(self.layer.name)}: " + unknown("payer", self.payer, PAYERS))
        if self.phase == "rank" and self.payer != "filter":
            raise HwmodelError(f"layer {shown(self.layer.name)}: phase rank is a filter's, not payer {self.payer}'s")
        if self.batch < 0 or not 0 <= self.kept_channels <= self.layer.out_channels:
            raise HwmodelError(
                f"layer {shown(self.layer.name)}: batch {self.batch}, kept_channels {self.kept_channels}"
            )
        if not 0 <= self.trained_channels <= self.layer.out_channels:
            raise HwmodelError(f"layer {shown(self.layer.name)}: trained_channels {self.trained_channels}")

    @property
    def report_phase(self) -> str:
        """Where a bill lists the Op's own work."""
        return charged_to(self.phase, self.payer)

    @property
    def n_trained(self) -> int:
        """Parameters that learn."""
        layer = self.layer
        weights, others = layer.n_weights, layer.n_parameters - layer.n_weights
        if self.trains != "all":
            return others if self.trains == "bias" else 0
        return (weights + others) // layer.out_channels * (self.trained_channels or layer.out_channels)

    @property
    def frozen_share(self) -> float:
        """Share of the weights that do not learn."""
        if self.trains != "all":
            return 1.0
        return 1 - self.trained_channels / self.layer.out_channels if self.trained_channels else 0.0

    @property
    def dense_macs(self) -> int:
        """Multiply-accumulates with no channel skipped.

        A pass of a conv or linear layer counts its products; an update its terms per parameter; a channel selection
        one accumulation per |error| and its terms per |weight|; thinning one accumulation per |error| and one product
        of it with 1 / tau. Everything else counts 0.
        """
        layer = self.layer
        if self.phase == "update":
            return self.parameter_terms * self.n_trained
        if self.phase == "select":
            return self.batch * layer.n_out + self.parameter_terms * layer.n_weights
        if self.phase == "thin":
            return 2 * self.batch * layer.n_out
        if self.phase == "rank" or (self.phase == "gradient" and self.trains == "bias"):
            return 0
        return self.batch * layer.macs

    @property
    def macs(self) -> int:
        """Multiply-accumulates performed: whole skipped channels leave a smaller dense convolution."""
        if self.phase in ("error", "gradient") and self.layer.kind in MAC_KINDS:
            return self.dense_macs // self.layer.out_channels * self.kept_channels
        return self.dense_macs

    @property
    def n_requantized(self) -> int:
        """Values this Op rounds into a narrower format: one multiply each, listed under `quantize`."""
        layer, kind = self.layer, self.layer.kind
        if self.widths.floating:
            return 0
        if self.phase == "forward":
            if kind == "loss":
                return 0
            weights = self.n_trained if self.payer in ("main", "filter") else 0
            return weights + (0 if kind in COPIES else self.batch * layer.n_out)
        if self.phase == "error":
            return 0 if kind in ("maxpool", "shortcut", "add", "activation") else self.batch * layer.n_in
        return self.n_trained if self.phase in ("gradient", "update") else 0


def error_weight_bits(layer: Layer, widths: Widths) -> int:
    """Bits of the weights as the input error's sums read them: wider where exponents of several output channels meet in
    one sum and are aligned."""
    return widths.weight_bits + (widths.weight_alignment if layer.out_channels > layer.groups else 0)


def charged_to(phase: str, payer: str) -> str:
    """The report phase of a pass made for `payer`."""
    if payer == "filter":
        return "filter_forward" if phase == "forward" else "filter_backward"
    return "uncertain_forward" if payer == "uncertain" else phase


def quantize_charged_to(payer: str, phase: str) -> str:
    """The report phase of requantizations: `quantize`, but the filter's and the uncertain forwards' stay with them."""
    return "quantize" if payer in ("main", "inner") else charged_to(phase, payer)
