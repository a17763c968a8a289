"""The metrics as TensorBoard scalars, for those who have it open anyway (extra: tensorboard)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.files import one_line_errors

TENSORBOARD = "tensorboard"
"""Folder of a run with the event files."""
_FLUSH_S = 5
"""Age of what TensorBoard sees, at most; chosen."""


class Scalars:
    """Event files beside a run's metrics. What earlier files hold is void: a resumed run adds all its rows anew, so
    that no row is lost with a killed process, and none is shown of steps that are taken again."""

    def __init__(self, run: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise QtrainError(
                "--tensorboard needs tensorboardX; install it with: pip install 'qtrain[tensorboard]'"
            ) from None
        with one_line_errors("write", run / TENSORBOARD):
            self._writer = SummaryWriter(str(run / TENSORBOARD), purge_step=0, flush_secs=_FLUSH_S)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of metrics: each number under its name at the row's step."""
        for row in rows:
            for name, value in row.items():
                if name != "step" and value is not None:
                    self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
