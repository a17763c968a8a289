"""The quantization points of the forward pass: Brevitas owns those rounded half to even, faster engines compute the
same bits."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qtrain import engine
from qtrain.formats.fixed import FixedPoint
from qtrain.formats.noise import Stream
from qtrain.layers.quantizer import NEAREST, Quantizer


class ForwardQuantizer(Quantizer):
    """A point of a weight or a layer's output.

    With the engine "brevitas" its values, where rounded half to even, are those of a Brevitas quantizer
    (qtrain.layers.brevitas) that holds this point's exponent; the other engines' are equal bit for bit, and save
    Brevitas' import and overhead.
    """

    def __init__(
        self, fmt: FixedPoint, rounding: str, scale: str, stream_id: int, name: str, role: str
    ) -> None:  # fmt: skip
        super().__init__(fmt, rounding, scale, stream_id, name)
        self.role = role
        self._brevitas: Any = None

    def _round(
        self, x: Tensor, exponent: int, stream: Stream | None, plus: Tensor | None = None
    ) -> tuple[Tensor, float | None]:
        if engine.active() != "brevitas" or self.rounding != NEAREST:
            return super()._round(x, exponent, stream, plus)
        values, *_ = self.brevitas(exponent)(x if plus is None else x + plus)
        return values, None

    def brevitas(self, exponent: int) -> Any:
        """The Brevitas tensor quantizer of this point, holding `exponent`."""
        if self._brevitas is None:
            from qtrain.layers.brevitas import tensor_quantizer  # imports Brevitas: 3 s

            self._brevitas = tensor_quantizer(self.format, self.role)
        self._brevitas.scaling_impl.hold(exponent)
        return self._brevitas
