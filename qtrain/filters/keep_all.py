"""No filter: every instance is trained on."""

from __future__ import annotations

from typing import ClassVar

from qtrain.filters.base import PlainFilter


class KeepAll(PlainFilter):
    """Plain training."""

    kind: ClassVar[str] = "none"


FILTER = KeepAll
