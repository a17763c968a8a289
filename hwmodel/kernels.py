"""Op -> the kernels a real library runs for it, none of them free, with their units of work.

Passes of a conv or linear layer are matrix products (CMSIS-NN, Lai et al. 2018; PULP-TrainLib, Nadalini et al. 2022):
forward        out[P, K]    = columns(x)[P, R] . W[R, K]            im2col, gemm, bias, activation, requantize
input error    dx[Pin, C]   = columns(dy)[Pin, K FY FX / s2] . W'   mask, align, rotate, im2col, gemm, requantize
weight gradient dW[K, R]    = dy'[K, P] . columns(x)[P, R]          transpose of both operands, gemm, requantize
with P output pixels of the batch, R = C FY FX / groups. A stride s splits the input error into s2 dense convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

from hwmodel.containers import container_bits
from hwmodel.elementwise import RULES as ELEMENTWISE_RULES
from hwmodel.errors import HwmodelError, unknown
from hwmodel.loops import trips
from hwmodel.operations import Op, error_weight_bits, quantize_charged_to
from hwmodel.work import Work

PIXELS_PER_PASS = 2
"""Output pixels that share one read of the weights: CMSIS-NN expands two im2col columns at a time."""


@lru_cache(maxsize=10_000)  # all devices run the same
def works(op: Op) -> tuple[Work, ...]:
    """The kernels of one Op in order of execution. Raises HwmodelError for a kind or phase without a rule."""
    if op.phase in _OF_ANY_KIND:
        return tuple(_OF_ANY_KIND[op.phase](op))
    rule = _RULES.get((op.layer.kind, op.phase))
    if rule is None:
        raise HwmodelError(
            f"layer {op.layer.name!r}: "
            + unknown("kernel rule", f"{op.layer.kind}/{op.phase}", (f"{k}/{p}" for k, p in _RULES))
        )
    if op.batch == 0:
        return ()
    return tuple(rule(op))


def form(op: Op) -> str:
    """Which product loop a layer's passes run: linear, depthwise, pointwise or conv."""
    layer = op.layer
    if layer.kind == "linear":
        return "linear"
    if layer.groups > 1 and layer.in_channels == layer.groups:
        return "depthwise"
    return "pointwise" if layer.kernel_height == layer.kernel_width == 1 else "conv"


def frozen_weight_bytes(op: Op) -> float:
    """Bytes of the layer's weights that lie in flash: those that do not learn."""
    return op.layer.n_weights * op.frozen_share * container_bits(op.widths.weight_bits) / 8


def taps(op: Op) -> int:
    """Positions of the kernel's window."""
    return op.layer.kernel_height * op.layer.kernel_width


def _gathered(op: Op, kernel: str, elements: float, n_taps: float, bits: int) -> Work:
    """Copying patches: `elements` in all, in runs of one tap's channels that each need an address and border check."""
    unpacked = elements if bits < 8 else 0.0
    return Work(kernel, op.report_phase, 0, elements, n_taps, (bits, bits), unpacked, 2 * _bytes(elements, bits))


def _bytes(count: float, bits: int) -> float:
    return count * container_bits(bits) / 8


def _requantized(op: Op, name: str, count: int, role: str = "") -> Iterator[Work]:
    """Rounding of `count` results into a narrower format, with random bits where the role (default: that of the phase)
    is rounded stochastically."""
    if not count or op.widths.floating:
        return
    phase = quantize_charged_to(op.payer, op.phase)
    yield Work(name, phase, count, count, sram_bytes=count * 4.0)
    if (role or op.phase) in op.widths.stochastic:
        yield Work("stochastic_rounding", phase, 0, count)


def _product(
    op: Op, kernel: str, outputs: float, bits: tuple[int, int], unpacked: float, weight_bytes: float = 0.0
) -> Work:
    macs = op.macs
    if kernel.startswith("depthwise") and op.phase != "gradient":
        outputs /= op.layer.groups  # its loop is set up once a pixel, for all channels
    traffic = _bytes(macs / PIXELS_PER_PASS, bits[0]) + _bytes(macs / PIXELS_PER_PASS, bits[1])
    return Work(
        kernel, op.report_phase, macs, macs, outputs, bits, unpacked,
        traffic + outputs * 4.0, weight_bytes,
        max(1.0, macs / op.layer.n_weights / PIXELS_PER_PASS), trips(op),
    )  # fmt: skip


def _forward(op: Op) -> Iterator[Work]:
    layer, widths, kind, phase = op.layer, op.widths, form(op), op.report_phase
    n_out = op.batch * layer.n_out
    if op.payer in ("main", "filter"):
        yield from _requantized(op, "requantize_weight", op.n_trained, "weight")
    pixels = op.batch * layer.out_height * layer.out_width
    if kind == "conv":
        columns = pixels * layer.reduction * layer.groups
        yield _gathered(op, "im2col", columns, pixels * taps(op), widths.activation_bits)
    yield _product(op, kind, n_out, (widths.activation_bits, widths.weight_bits),
                   op.macs / PIXELS_PER_PASS if widths.weight_bits < 8 else 0.0, frozen_weight_bytes(op))  # fmt: skip
    if layer.bias:
        yield Work("bias", phase, 0, n_out, sram_bytes=4.0 * n_out)
    yield from _requantized(op, "requantize", n_out, "activation")
    if layer.activation != "none":
        yield Work("activation", phase, 0, n_out, sram_bytes=2 * _bytes(n_out, widths.activation_bits))


def _error(op: Op) -> Iterator[Work]:
    layer, widths, kind, phase = op.layer, op.widths, form(op), op.report_phase
    share = op.kept_channels / layer.out_channels
    yield from _masked(op)
    n_in = op.batch * layer.n_in
    bits = error_weight_bits(layer, widths)
    if bits > widths.weight_bits:  # a shift by its channel's exponent, once a weight: one of a requantization's steps
        n = layer.n_weights * share
        yield Work("requantize_weight", phase, 0, n, sram_bytes=_bytes(n, widths.weight_bits) + _bytes(n, bits))
    if kind == "conv":
        rotated = layer.n_weights * share
        columns = layer.groups * op.macs / layer.in_channels
        yield Work("rotate", phase, 0, rotated, bits=(bits,) * 2, sram_bytes=2 * _bytes(rotated, bits),
                   weight_bytes=frozen_weight_bytes(op) * share)  # fmt: skip
        n_taps = columns / (layer.out_channels * share) if share else 0.0
        yield _gathered(op, "im2col", columns, n_taps, widths.error_bits)
        flash = 0.0  # the rotated copy lies in SRAM
    else:
        flash = frozen_weight_bytes(op) * share
    yield _product(op, kind + "_error", n_in, (widths.error_bits, bits),
                   op.macs / PIXELS_PER_PASS if bits < 8 else 0.0, flash)  # fmt: skip
    yield from _requantized(op, "requantize", n_in)


def _masked(op: Op) -> Iterator[Work]:
    """The derivative of the fused activation: errors behind a clipped output are zeroed."""
    if op.layer.activation != "none":
        n_out = op.batch * op.layer.n_out * op.kept_channels / op.layer.out_channels
        yield Work(
            "mask", op.report_phase, 0, n_out, sram_bytes=_bytes(n_out, op.widths.stored_error_bits) * 2 + n_out / 8
        )


def _gradient(op: Op) -> Iterator[Work]:
    layer, widths, kind, phase = op.layer, op.widths, form(op), op.report_phase
    share = op.kept_channels / layer.out_channels
    n_error = op.batch * layer.n_out * share
    if layer.bias or op.trains == "bias":
        yield Work("bias_gradient", phase, 0, n_error, sram_bytes=_bytes(n_error, widths.stored_error_bits))
    if op.trains == "all":
        outputs = layer.n_weights * share
        if kind in ("conv", "pointwise"):
            pixels = op.batch * layer.out_height * layer.out_width
            columns = pixels * layer.reduction * layer.groups
            yield _gathered(op, "transpose", columns, pixels * taps(op), widths.activation_bits)
            yield _gathered(op, "transpose", n_error, pixels, widths.stored_error_bits)
        kernel = kind + "_gradient"
        yield _product(op, kernel, outputs, (widths.stored_error_bits, widths.activation_bits), 0.0)
    yield from _requantized(op, "requantize_gradient", op.n_trained)


def _update(op: Op) -> Iterator[Work]:
    n, bits = op.n_trained, op.widths.master_bits
    if not n:
        return
    yield Work("update", op.report_phase, n, n, sram_bytes=_bytes(n, bits) * 2 + _bytes(n, op.widths.gradient_bits))
    extra = op.macs - n
    if extra > 0:
        yield Work("momentum", op.report_phase, extra, extra, sram_bytes=2 * _bytes(extra, op.widths.momentum_bits))
    yield from _requantized(op, "requantize_update", op.n_requantized)


def _select(op: Op) -> Iterator[Work]:
    """Channel importance (sums of |error| and, where they count, of |weight|), then a sort of the channels."""
    layer, n_weights = op.layer, op.parameter_terms * op.layer.n_weights
    yield Work("select", op.report_phase, op.macs, op.macs,
               sram_bytes=_bytes(op.batch * layer.n_out, op.widths.stored_error_bits)
               + _bytes(n_weights, op.widths.weight_bits))  # fmt: skip
    yield _sort(op, layer.out_channels)


def _rank(op: Op) -> Iterator[Work]:
    yield _sort(op, op.batch)


def _sort(op: Op, n: int) -> Work:
    """Sorting `n` values of 4 bytes, as deep in comparisons as n has bits."""
    return Work("sort", op.report_phase, 0, n * max(1, n.bit_length()), sram_bytes=4.0 * n)


def _thin(op: Op) -> Iterator[Work]:
    """Stochastic pruning of single elements (Ye et al. 2020), in one pass, since the threshold is predicted: |error|
    joins the sum for the next threshold and is compared with this one; below it the error becomes zero or the threshold
    by a random draw, and is written back. Every element is charged a draw, as in a loop without branches: how many lie
    below the threshold is not known beforehand."""
    n = op.batch * op.layer.n_out
    yield Work("thin", op.report_phase, op.macs, n, sram_bytes=2 * _bytes(n, op.widths.stored_error_bits))
    yield Work("stochastic_rounding", op.report_phase, 0, n)


_OF_ANY_KIND: dict[str, Callable[[Op], Iterator[Work]]] = {
    "update": _update,
    "select": _select,
    "thin": _thin,
    "rank": _rank,
}
_RULES: dict[tuple[str, str], Callable[[Op], Iterator[Work]]] = {
    **{(kind, "forward"): _forward for kind in ("conv", "linear")},
    **{(kind, "error"): _error for kind in ("conv", "linear")},
    **{(kind, "gradient"): _gradient for kind in ("conv", "linear")},
    **ELEMENTWISE_RULES,
}
