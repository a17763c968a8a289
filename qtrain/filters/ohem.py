"""Online hard example mining: the whole forward, the backward of the highest losses alone."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from qtrain.filters.base import PlainFilter


class OHEM(PlainFilter):
    """Goes back with the `keep` share of highest losses, one instance at least, of equal ones the earlier.

    Shrivastava, Gupta, Girshick 2016, "Training Region-based Object Detectors with Online Hard Example Mining", as
    Wu et al. 2020 apply it to classification.
    """

    kind: ClassVar[str] = "ohem"

    def __init__(self, keep: float = 0.5) -> None:
        self.keep = keep

    def backward_rows(self, losses: Tensor) -> Tensor | None:
        k = min(max(1, round(self.keep * len(losses))), len(losses))
        return losses.argsort(descending=True, stable=True)[:k].sort().values


FILTER = OHEM
