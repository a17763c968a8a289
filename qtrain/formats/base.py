"""What a number format is."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from qtrain.formats.noise import Stream


@runtime_checkable
class Format(Protocol):
    """A frozen value: which numbers exist at `bits` an element, and how others are rounded onto them.

    Formats that scale take their scale from the tensor (`scale_for`), or use a held one.
    """

    @property
    def bits(self) -> int:
        """Bits of one element, shared scales not counted."""
        ...

    def scale_for(self, x: Tensor) -> Any:
        """What places the grid for `x` (of any shape); None where the grid is fixed."""
        ...

    def limits(self, scale: Any) -> tuple[Tensor, Tensor]:
        """Smallest and largest representable value at `scale`, float64, broadcasting against the tensor."""
        ...

    def quantize(
        self, x: Tensor, rounding: str = "nearest-even", stream: Stream | None = None, scale: Any = None
    ) -> Tensor:
        """`x` rounded onto the grid of `scale` (default: its own), saturating; same shape and dtype."""
        ...
