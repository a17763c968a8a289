"""One quantization point: a format, a rounding, a scale rule and the exponent it holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qtrain.engine import kernels_for, points
from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedPoint, FixedTensor
from qtrain.formats.noise import Stream

SCALES = ("dynamic", "delayed", "moving-average", "percentile", "static")
NEAREST = "nearest-even"
MOVING_AVERAGE_DECAY = 0.9
"""Share of the old maximum kept a step: the running average of Banner et al. 2018 uses momentum 0.1."""
PERCENTILE = 0.9999
"""Share of magnitudes the percentile rule represents without saturation (Brevitas' default is 99.999)."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where a run stands: what every noise stream is keyed by."""

    seed: int
    step: int


class Quantizer:
    """Rounds tensors of one role at one place of the network onto code x 2^exponent.

    Scale rules, from the largest magnitude `amax` of each step's tensor: dynamic uses this step's; delayed the
    previous step's (one pass over the data; a sudden growth saturates for one step); moving-average a decaying mean;
    percentile the PERCENTILE-th magnitude of this step; static the first step's, for ever. The exponent is the
    smallest that holds it.
    """

    def __init__(self, fmt: FixedPoint, rounding: str, scale: str, stream_id: int, name: str) -> None:
        self.format = fmt
        self.rounding = rounding
        self.scale = scale
        self.stream_id = stream_id
        self.name = name
        self.amax: float | None = None  # what the next exponent is taken from
        self.exponent: int | None = None  # the last one used
        self.whole = False  # a parameter: known as a whole, and changed since it was last looked at
        self.rule: Any = None  # what the compiled kernels know of this point
        self.monitor: deque[dict[str, float]] | None = None
        self.watch: Callable[[str, FixedTensor], None] | None = None  # shown everything stored, by this point's name

    def __call__(
        self,
        x: Tensor,
        clock: Clock,
        rows: Tensor | None = None,
        *,
        learn: bool = True,
        cap: float | None = None,
        plus: Tensor | None = None,
        owned: bool = False,
        packed: bool = False,
    ) -> FixedTensor:
        """Quantize `x` (any shape). `rows` are its first dimension's positions in the ungathered tensor; with `learn`
        False the held exponent is used and left alone; `cap` is the largest value stored (ReLU6); `plus` is added to
        `x` first. `owned`: x may be overwritten. `packed`: only a normalization reads it, as int8 codes if it likes.

        Raises QtrainError when `x` is not finite.
        """
        library = kernels_for(x)
        if library is not None and points.accepts(self):
            stored: FixedTensor | None = None
            if packed and self.monitor is None:
                stored = points.pack(library, self, x, learn)
            if stored is None:
                owned = owned and self.monitor is None
                stored = points.quantize(library, self, x, clock, rows, learn, cap, plus, owned)
        else:
            stored = self._quantize(x, clock, rows, learn, cap, plus)
        if self.monitor is not None:
            source = x if plus is None else x + plus
            source = source if cap is None else source.clamp(max=cap)
            self.monitor.append(self._health(source, stored.values, stored.exponent or 0))
        return self.stored(stored)

    def _quantize(
        self, x: Tensor, clock: Clock, rows: Tensor | None, learn: bool, cap: float | None, plus: Tensor | None
    ) -> FixedTensor:
        """The same by PyTorch's operations, or Brevitas'."""
        stream = Stream(clock.seed, clock.step, self.stream_id, rows) if self.rounding == "stochastic" else None
        held = self.held(learn)
        if held is not None and cap is None:  # one pass: what the rule learns is found on the way
            values, seen = self._round(x, held, stream, plus)
            if learn:
                self.observe(self._magnitude(x if plus is None else x + plus) if seen is None else seen, learn)
            return FixedTensor(values, held)
        x = x if plus is None else x + plus
        exponent = self._exponent(x, learn, cap)
        return FixedTensor(self._round(x if cap is None else x.clamp(max=cap), exponent, stream)[0], exponent)

    def stored(self, tensor: FixedTensor) -> FixedTensor:
        """Show `tensor` to whoever watches this point; returns it."""
        if self.watch is not None:
            self.watch(self.name, tensor)
        return tensor

    def _round(
        self, x: Tensor, exponent: int, stream: Stream | None, plus: Tensor | None = None
    ) -> tuple[Tensor, float | None]:
        """x (+ plus) on the grid of `exponent`, and its largest magnitude where that was found on the way."""
        return self.format.quantize_seen(x, exponent, self.rounding, stream, plus)

    def _exponent(self, x: Tensor, learn: bool, cap: float | None) -> int:
        held = self.held(learn) if not learn else None
        return self.observe(self._magnitude(x), learn, cap) if held is None else held

    def held(self, learn: bool) -> int | None:
        """The exponent of the next tensor where the rule knows it before it looks, else None."""
        if self.amax is None or ((learn or self.whole) and self.scale not in ("delayed", "static")):
            return None
        return self.format.exponent_for(self.amax)

    def observe(self, seen: float, learn: bool, cap: float | None = None) -> int:
        """The exponent for a tensor of largest magnitude `seen`, after learning from it if asked to.

        Raises QtrainError when it is not finite.
        """
        if not seen < float("inf"):
            raise QtrainError(f"{self.name}: values are not finite; lower the learning rate (--lr) or raise the bits")
        seen = seen if cap is None else min(seen, cap)
        if seen == 0.0:  # zeros teach nothing: the next tensor must not be saturated for their sake
            exponent = self.format.exponent_for(self.amax or 0.0)
            self.exponent = exponent if learn else self.exponent
            return exponent
        if self.amax is None or self.scale in ("dynamic", "percentile"):
            used = seen
        elif self.scale == "moving-average":
            used = MOVING_AVERAGE_DECAY * self.amax + (1 - MOVING_AVERAGE_DECAY) * seen
        else:
            used = self.amax
        exponent = self.format.exponent_for(used)
        if learn:
            if self.amax is None or self.scale != "static":
                self.amax = used if self.scale == "moving-average" else seen
            self.exponent = exponent
        return exponent

    def _magnitude(self, x: Tensor) -> float:
        if x.numel() == 0:
            return self.amax or 0.0
        if self.scale == "percentile":
            flat = x.abs().flatten()
            return float(flat.kthvalue(max(1, round(PERCENTILE * flat.numel()))).values)
        return self.format.largest(x)

    def _health(self, x: Tensor, values: Tensor, exponent: int) -> dict[str, float]:
        """Shares saturated and flushed to zero, and the signal-to-quantization-noise ratio in dB."""
        limit = self.format.max_code * 2.0**exponent
        wanted = x if self.format.signed else x.clamp(min=0)
        nonzero = wanted != 0
        count = max(int(nonzero.sum()), 1)
        noise = float((wanted - values).double().square().sum())
        signal = float(wanted.double().square().sum())
        return {
            "saturated": float((wanted.abs() > limit).sum()) / max(x.numel(), 1),
            "zeroed": float((nonzero & (values == 0)).sum()) / count,
            "signal": signal,
            "noise": noise,
            "exponent": exponent,
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"amax": self.amax, "exponent": self.exponent}

    def load_state(self, state: dict[str, Any]) -> None:
        self.amax, self.exponent = state["amax"], state["exponent"]
