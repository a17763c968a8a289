"""Quantization points of the formats that are no fixed point: rounded exactly onto their grid, carried by floats.

What is stored is what a device would store; the sums of products of such numbers run in the carrier's floating point,
in PyTorch's order, so that they are not certified. `FixedTensor.exponent` is None.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qtrain.errors import QtrainError
from qtrain.formats import names
from qtrain.formats.block import BlockFloat, Microscaling
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.minifloat import FLOAT32, Minifloat
from qtrain.formats.noise import Stream
from qtrain.formats.registry import by_name
from qtrain.formats.scaled import ScaledInteger
from qtrain.layers.pointwise import RELU6_CAP
from qtrain.layers.quantizer import MOVING_AVERAGE_DECAY, Clock, Quantizer


class EmulatedQuantizer(Quantizer):
    """A point of a block floating point, MX, minifloat or real-scaled integer format, after the activation it stands
    for.

    Minifloats lie on a power of two a tensor that follows the plan's rule as fixed point's exponent does (bfloat16 and
    wider exponents need none). Blocks take their own maxima. Integers take their step from the smallest and largest
    value under the same rules; "moving-average" averages each instance's own (Banner et al. 2018, section 3).
    """

    format: Any

    def __init__(self, fmt: Any, rounding: str, scale: str, stream_id: int, name: str, activation: str) -> None:
        super().__init__(fmt, rounding, scale, stream_id, name)
        self.activation = activation
        self.range: tuple[float, float] | None = None  # what the next step's integers span

    def __call__(
        self, x: Tensor, clock: Clock, rows: Tensor | None = None, *, learn: bool = True, cap: float | None = None,
        plus: Tensor | None = None, owned: bool = False, packed: bool = False,
    ) -> FixedTensor:  # fmt: skip
        """As Quantizer's; the values come without an exponent. Raises QtrainError when `x` is not finite."""
        x = x if plus is None else x + plus
        if self.activation != "none":
            x = F.relu(x) if self.activation == "relu" else F.hardtanh(x, 0.0, RELU6_CAP)
        stream = Stream(clock.seed, clock.step, self.stream_id, rows) if self.rounding == "stochastic" else None
        scale = self._scale(x, learn)
        values = self.format.quantize(x, self.rounding, stream, scale) if x.numel() else x
        if self.monitor is not None and x.numel():
            self.monitor.append(self._losses(x, values, scale))
        return self.stored(FixedTensor(values))

    def _scale(self, x: Tensor, learn: bool) -> Any:
        """What places the grid of `x`: an exponent, a step and zero point, or None where its blocks do."""
        if isinstance(self.format, Minifloat):
            self.exponent = self._exponent(x, learn, None)
            return self.exponent
        if isinstance(self.format, ScaledInteger) and x.numel():
            return self.format.scale_for(torch.tensor(self._span(x, learn), dtype=torch.float64))
        if not math.isfinite(self._magnitude(x)):
            self.observe(math.inf, learn)
        return None

    def _magnitude(self, x: Tensor) -> float:
        if self.scale == "percentile" or not x.numel():
            return super()._magnitude(x)
        low, high = torch.aminmax(x)
        return max(float(high), -float(low))

    def _span(self, x: Tensor, learn: bool) -> tuple[float, float]:
        """Smallest and largest value that the integers reach, by the plan's rule."""
        if self.range is not None and (not learn or self.scale == "static"):
            return self.range
        if self.scale == "percentile":
            high = self._magnitude(x)
            seen = (-high if float(x.min()) < 0 else 0.0, high)
        elif self.scale == "moving-average" and x.dim() > 1:
            low, top = torch.aminmax(x.flatten(1), dim=1)
            seen = float(low.double().mean()), float(top.double().mean())
        else:
            seen = float(x.min()), float(x.max())
        if not all(map(math.isfinite, seen)):
            raise QtrainError(f"{self.name}: values are not finite; lower the learning rate (--lr) or raise the bits")
        used = seen if self.range is None or self.scale in ("dynamic", "percentile") else self.range
        if self.range is not None and self.scale == "moving-average":
            old = MOVING_AVERAGE_DECAY
            used = old * self.range[0] + (1 - old) * seen[0], old * self.range[1] + (1 - old) * seen[1]
        if learn:
            self.range = used if self.scale == "moving-average" else seen
        return used

    def _losses(self, x: Tensor, values: Tensor, scale: Any) -> dict[str, float]:
        """As Quantizer's, with the exponent of the grid: of its largest block, of an integer's step."""
        scale = self.format.scale_for(x) if isinstance(self.format, BlockFloat | Microscaling) else scale
        low, high = self.format.limits(scale)
        if isinstance(scale, tuple):  # a zero point between two codes moves the ends by up to half a step
            low, high = low - scale[0] / 2, high + scale[0] / 2
        nonzero = x != 0
        exponent = int(scale.max()) if isinstance(scale, Tensor) else scale
        if isinstance(scale, tuple):
            exponent = math.frexp(float(scale[0]))[1] - 1
        return {
            "saturated": float(((x > high) | (x < low)).sum()) / x.numel(),
            "zeroed": float((nonzero & (values == 0)).sum()) / max(int(nonzero.sum()), 1),
            "signal": float(x.double().square().sum()),
            "noise": float((x - values).double().square().sum()),
            "exponent": exponent,
        }

    def state(self) -> dict[str, Any]:
        return super().state() | {"range": self.range}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.range = None if state["range"] is None else tuple(state["range"])


def stored_format(name: str, bits: int) -> Any:
    """The format called `name` of a tensor that is known as a whole before it is stored: a master or a momentum."""
    return FixedPoint(bits) if name == names.FIXED else by_name(names.at(name, bits))


def rounded(fmt: Any, x: Tensor, rounding: str, stream: Stream | None) -> Tensor:
    """`x` on the grid of `fmt` (no fixed point) by its own maximum; float32 takes the nearest number."""
    if fmt == FLOAT32:
        return x.float()
    scale = fmt.exponent_for(float(x.abs().max())) if isinstance(fmt, Minifloat) else None
    values: Tensor = fmt.quantize(x, rounding, stream, scale)
    return values
