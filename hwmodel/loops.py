"""Direct loops of a convolution, without im2col: how often each level of the nest is entered, and what an entry costs.

A direct loop checks each row and each column of its window against the border, and multiplies only what lies inside.
Its cycles are sums over the levels: exact within 1 % for loops compiled once (benchmarks/kernels).
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from hwmodel import cores
from hwmodel.operations import Op


@dataclass(frozen=True, slots=True)
class Trips:
    """Entries of each level of a direct loop in one pass.

    `products` inside the border in `runs` of one tap's channels; `skips` of columns and `row_skips` of rows outside;
    `rows` inside; `outputs` sums or scattered errors; `inputs` cleared and rounded at the end of a scatter. Where
    channels lie innermost all levels but the products are entered once for the `channels` of a depthwise layer.
    """

    products: float
    runs: float
    skips: float
    rows: float
    row_skips: float
    outputs: float
    inputs: float
    channels: int


@dataclass(frozen=True, slots=True)
class Loop:
    """Cycles per entry of each level."""

    product: float
    output: float = 0.0
    run: float = 0.0
    skip: float = 0.0
    row: float = 0.0
    row_skip: float = 0.0
    input: float = 0.0
    innermost: bool = False  # channels are: see Trips

    def cycles(self, trips: Trips, product: float) -> float:
        """Cycles of the whole nest, at `product` cycles a product (the loop's own, or those of wider numbers)."""
        entries = (
            trips.runs * self.run
            + trips.skips * self.skip
            + trips.rows * self.row
            + trips.row_skips * self.row_skip
            + trips.outputs * self.output
        )
        share = trips.channels if self.innermost else 1
        return trips.products * product + entries / share + trips.inputs * self.input


@lru_cache(maxsize=10_000)
def inside(side: int, out_side: int, kernel: int, stride: int) -> int:
    """Pairs (output, tap) along one side whose input lies inside the map; the least symmetric padding that fits."""
    pad = max(0, -(-((out_side - 1) * stride + kernel - side) // 2))
    found = 0
    for tap in range(kernel):
        first = max(0, -((tap - pad) // stride))  # the first output whose input is not before the map
        last = min(out_side - 1, (side - 1 + pad - tap) // stride)
        found += max(0, last - first + 1)
    return found


def trips(op: Op) -> Trips:
    """Entries of the loops of one pass of a conv or linear layer; a linear layer is one tap of one pixel."""
    la = op.layer
    down = inside(la.in_height, la.out_height, la.kernel_height, la.stride_height)
    across = inside(la.in_width, la.out_width, la.kernel_width, la.stride_width)
    pixels, taps = la.out_height * la.out_width, la.kernel_height * la.kernel_width
    channels = op.kept_channels if op.phase != "forward" else la.out_channels
    products = op.macs * down * across / (pixels * taps)
    nests = op.batch * channels
    if op.phase == "gradient":  # for each weight over all output pixels
        nests = channels * la.in_channels // la.groups
        columns, outputs, n_images = la.kernel_width, nests * taps, op.batch
    else:  # for each output over all taps
        columns, outputs, n_images = la.out_width, nests * pixels, 1
    return Trips(
        products=products,
        runs=products / (la.in_channels // la.groups),
        skips=nests * n_images * down * (la.out_width * la.kernel_width - across),
        rows=nests * n_images * down * columns,
        row_skips=nests * n_images * columns * (la.out_height * la.kernel_height - down),
        outputs=outputs,
        inputs=op.batch * la.n_in,
        channels=la.groups,
    )


def loop(sets: tuple[str, ...], kernel: str, core_name: str) -> Loop | None:
    """The loop of a kernel in the first of the `sets` that has one, on a core; None if no set has."""
    for name in sets:
        table = _loops(name, core_name)
        for alias in (kernel, kernel.replace("pointwise", "conv").replace("linear", "conv")):
            if alias in table:
                return table[alias]
    return None


@cache
def _loops(name: str, core_name: str) -> dict[str, Loop]:
    """A set's loops on a core: its own, or those of the core it is like, scaled."""
    row: dict[str, Any] = dict(_table()[name].get(core_name, {}))
    core = cores.core(core_name)
    base, scale = row.pop("like", core.like), row.pop("scale", core.scale)
    own = {kernel: Loop(**fields) for kernel, fields in row.items() if isinstance(fields, dict)}
    if own or not base:
        return own
    return {kernel: _scaled(item, scale) for kernel, item in _loops(name, base).items()}


def _scaled(item: Loop, scale: float) -> Loop:
    levels = {f.name: scale * getattr(item, f.name) for f in dataclasses.fields(Loop) if f.name != "innermost"}
    return dataclasses.replace(item, **levels)


@cache
def _table() -> dict[str, Any]:
    text = (resources.files("hwmodel") / "calibration" / "loops.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
