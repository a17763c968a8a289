"""Bytes that numbers, masks and a kernel's working buffers occupy."""

from __future__ import annotations

from dataclasses import dataclass

from hwmodel.containers import container_bits
from hwmodel.operations import MAC_KINDS, NORM_KINDS, PRUNING, Layer, Op, Widths, error_weight_bits

IMAGE_BITS = 8
"""Bits of a raw pixel."""
IM2COL_COLUMNS = 2
IM2COL_BITS = 16
"""CMSIS-NN's arm_convolve_s8 expands two patches to 16 bit before each GEMM
(arm_convolve_s8_get_buffer_size)."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How a device lays out values.

    `containers`: values narrower than a word lie in power-of-two fields that no byte boundary cuts, as software on a
    microcontroller keeps them (3 bits in 4, 12 bits in 16); else they are packed bit by bit. `copies`: kernels copy
    operands into matrix order, as software does and an array's address generators do not.
    """

    containers: bool = False
    copies: bool = True

    def bytes(self, n: int, bits: int) -> int:
        """Bytes of `n` values of `bits` each."""
        stored = container_bits(bits) if self.containers else bits
        return -(-n * stored // 8)


def value_bits(layer: Layer, widths: Widths) -> int:
    """Bits of one element of the layer's output as stored for its readers."""
    return widths.norm_bits if layer.normalized else widths.activation_bits


def statistics_bytes(layer: Layer, widths: Widths, n_instances: int, packing: Packing) -> int:
    """Bytes of a normalization's statistics: the running ones, and mean and deviation of the batch or, of a group
    normalization, of every instance's groups."""
    n, batch = layer.out_channels, widths.accumulator_bits
    running = packing.bytes(n, widths.mean_bits) + packing.bytes(n, widths.variance_bits)
    if layer.kind == "groupnorm":
        return packing.bytes(2 * n_instances * layer.groups, batch)
    return running + (packing.bytes(2 * n, batch) if layer.kind != "frozennorm" else 0)


def image_bytes(n: int) -> int:
    """Bytes of `n` raw pixels."""
    return n * IMAGE_BITS // 8


def mask_bytes(n: int) -> int:
    """Bytes of the mask of `n` ReLU outputs, one bit each."""
    return -(-n // 8)


def pool_index_bytes(n: int, layer: Layer) -> int:
    """Bytes of the positions of `n` maxima in the layer's window."""
    window = layer.kernel_height * layer.kernel_width
    return -(-n * max(1, (window - 1).bit_length()) // 8)


LAYOUT_BUFFERS = ("im2col", "rotated weights", "transposes")


def buffer_bytes(op: Op, packing: Packing) -> dict[str, int]:
    """Working buffers that one pass holds besides its operands, by name; layout copies only where kernels make them."""
    buffers = _software_buffers(op, packing)
    return buffers if packing.copies else {k: n for k, n in buffers.items() if k not in LAYOUT_BUFFERS}


def _software_buffers(op: Op, packing: Packing) -> dict[str, int]:
    """Working buffers of software kernels.

    im2col: two patches at a time (none for 1x1 and linear layers, whose rows lie ready). Rotated weights: the input
    error is a convolution with the kernels rotated and the channels exchanged, so one rotated copy. Aligned weights:
    the same copy, wider, of weights with an exponent a channel, made wherever those meet in one sum. Transposes: the
    weight gradient sums over pixels, so one instance's input and error are laid out by channel. Accumulators: of one
    output pixel (forward, error), since the exponent of an activation or error is known beforehand; of the whole layer
    (gradient), whose exponent is that of its largest value. The rounded gradient takes the place of its accumulators.
    """
    layer, w = op.layer, op.widths
    if layer.kind in NORM_KINDS and op.phase != "update":
        return {"accumulators": packing.bytes(2 * layer.out_channels, w.accumulator_bits)}
    if layer.kind not in MAC_KINDS or op.phase in ("update", *PRUNING):
        return {}
    window = layer.kernel_height * layer.kernel_width
    column_bits = max(IM2COL_BITS, w.activation_bits)
    if op.phase == "forward":
        n_column = layer.reduction if window > 1 else 0
        return {
            "im2col": packing.bytes(IM2COL_COLUMNS * n_column, column_bits),
            "accumulators": packing.bytes(layer.out_channels, w.accumulator_bits),
        }
    if op.phase == "error":
        n_column = layer.out_channels // layer.groups * window if window > 1 else 0
        bits = error_weight_bits(layer, w)
        aligned = packing.bytes(layer.n_weights, bits) if bits > w.weight_bits else 0
        return {
            "aligned weights": aligned,
            "im2col": packing.bytes(IM2COL_COLUMNS * n_column, column_bits),
            "rotated weights": packing.bytes(layer.n_weights, bits) if layer.kind == "conv" and not aligned else 0,
            "accumulators": packing.bytes(layer.in_channels, w.accumulator_bits),
        }
    accumulators = packing.bytes(op.n_trained, w.accumulator_bits) - packing.bytes(op.n_trained, w.gradient_bits)
    transposes = 0
    if layer.kind == "conv" and op.trains == "all":
        n_error = layer.n_out // layer.out_channels * (op.trained_channels or layer.out_channels)
        transposes = packing.bytes(layer.n_in, w.activation_bits) + packing.bytes(n_error, w.stored_error_bits)
    return {"transposes": transposes, "accumulators": max(0, accumulators)}
