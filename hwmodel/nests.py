"""Every pass of a conv or linear layer as the same loop nest of seven dimensions, its roles exchanged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from hwmodel.operations import Op, error_weight_bits


@dataclass(frozen=True, slots=True)
class Nest:
    """out[n, k, p, q] += in[n, c, p·stride + r·spread, q·stride + s·spread] · filter[k, c, r, s], `groups`
    times over.

    forward: as written. Input error: k and c change places, the error map is the input; a stride splits it
    into dense nests over the positions of one phase each. Weight gradient: the error map is the filter (r x
    s = its height and width, its taps spread by the layer's stride), the input's channels are the batch (n)
    and the instances are summed (c); the output, k x n x p x q, is the layer's weights. `height` and
    `width` bound the input without its padding; bits are those of the two operands and of the stored
    result. `follows`: the nest before it read the
    same input.
    """

    groups: int
    n: int
    k: int
    c: int
    p: int
    q: int
    r: int
    s: int
    stride: int
    spread: int
    height: int
    width: int
    input_bits: int
    filter_bits: int
    output_bits: int
    follows: bool = False

    @property
    def macs(self) -> int:
        return self.groups * self.n * self.k * self.c * self.p * self.q * self.r * self.s

    @property
    def reduction(self) -> int:
        """Products summed into one output."""
        return self.c * self.r * self.s

    @property
    def pixels(self) -> int:
        """Outputs that share one filter, of one group."""
        return self.n * self.p * self.q

    def input_rows(self, outputs: int) -> int:
        """Input rows that `outputs` neighbouring output rows read."""
        return min(self.height, (outputs - 1) * self.stride + (self.r - 1) * self.spread + 1)

    @property
    def input_width(self) -> int:
        return min(self.width, (self.q - 1) * self.stride + (self.s - 1) * self.spread + 1)

    @property
    def n_input(self) -> int:
        """Input elements that all groups read, padding left out."""
        return self.groups * self.n * self.c * self.input_rows(self.p) * self.input_width

    @property
    def n_filter(self) -> int:
        return self.groups * self.k * self.reduction

    @property
    def n_output(self) -> int:
        return self.groups * self.k * self.pixels


@lru_cache(maxsize=10_000)
def nests(op: Op) -> tuple[Nest, ...]:
    """The loop nests of a forward, error or gradient pass without its skipped channels; none if nothing is
    left."""
    layer, w = op.layer, op.widths
    kept = layer.out_channels if op.phase == "forward" else op.kept_channels
    g, c = layer.groups, layer.in_channels // layer.groups
    k = layer.out_channels // g
    if k == 1:
        g = kept  # depthwise: a skipped channel is a skipped group
    else:
        k = -(-kept // g)
    if not op.batch or not kept or (op.phase == "gradient" and op.trains != "all"):
        return ()
    rows, cols, r, s = layer.out_height, layer.out_width, layer.kernel_height, layer.kernel_width
    image = (layer.in_height, layer.in_width)
    stride = max(layer.stride_height, layer.stride_width)
    if op.phase == "forward":
        stored = w.norm_bits if layer.normalized else w.activation_bits
        return (Nest(g, op.batch, k, c, rows, cols, r, s, stride, 1, *image, w.activation_bits, w.weight_bits, stored),)
    if op.phase == "gradient":
        bits = (w.activation_bits, w.stored_error_bits, w.gradient_bits)
        return (Nest(g, c, k, op.batch, r, s, rows, cols, 1, stride, *image, *bits),)
    bits = (w.error_bits, error_weight_bits(layer, w), w.stored_error_bits)
    phases = product(_phases(r, layer.stride_height), _phases(s, layer.stride_width))
    return tuple(
        Nest(g, op.batch, c, k, rows, cols, taps_r, taps_s, 1, 1, rows, cols, *bits, follows=i > 0)
        for i, (taps_r, taps_s) in enumerate(phases)
    )


def _phases(taps: int, stride: int) -> list[int]:
    """Taps that reach each position of a strided input: of 3 taps at stride 2, two reach even rows, one odd
    rows."""
    return [n for n in (len(range(i, taps, stride)) for i in range(stride)) if n]
