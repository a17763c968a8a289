"""A run is a folder: its experiment, environment, metrics, trace, checkpoints, weights and result.

Reading needs no lock; one process at a time may write. What a folder holds is decided by its files alone.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment, code_version, load
from qtrain.files import MAX_JSON_BYTES, one_line_errors, parse_json, to_json, write_atomic
from qtrain.store import checkpoint, metrics, tensors
from qtrain.store.folder import ENVIRONMENT, EXPERIMENT, LOCK, settle
from qtrain.store.lock import Lock
from qtrain.store.sums import SUMS, read_checked, write_sums

if TYPE_CHECKING:
    import numpy as np

METRICS, TRACE, WEIGHTS, RESULT = "metrics.jsonl", "trace.json", "weights.safetensors", "result.json"
NUMBERS = "numbers.json"
CHECKPOINTS = "checkpoint"


class Run:
    """A run's folder. Make one with `create`, look at one with `open`; both are context managers.

    Every method raises QtrainError, in one line, for what the disk refuses or what is damaged on it; what was
    whole before is whole after.
    """

    def __init__(self, path: Path, experiment: Experiment, lock: Lock | None) -> None:
        self.path = path
        self.experiment = experiment
        self._lock = lock

    @classmethod
    def create(cls, path: str | Path, experiment: Experiment) -> "Run":
        """The folder for writing, new or begun before with the same options; locked until `close`."""
        path = Path(path)
        with one_line_errors("create", path):
            path.mkdir(parents=True, exist_ok=True)
        lock = Lock(path / LOCK)
        try:
            settle(path, experiment)
        except BaseException:
            lock.release()
            raise
        return cls(path, experiment, lock)

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> "Run":
        """An existing run, for reading; with `writable` locked until `close`."""
        path = Path(path)
        with one_line_errors("read", path):
            there = (path / EXPERIMENT).is_file()
        if not there:
            raise QtrainError(f"{path}: not a run (it has no {EXPERIMENT})")
        experiment = load(path / EXPERIMENT)
        return cls(path, experiment, Lock(path / LOCK) if writable else None)

    def close(self) -> None:
        """Give up the right to write."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def id(self) -> str:
        """The id the run was created under: of its options and of the code at that time."""
        return str(self.environment().get("run_id", ""))

    def environment(self) -> dict[str, Any]:
        """What the run was carried out with (env.json)."""
        found = self.read_json(ENVIRONMENT)
        return found if isinstance(found, dict) else {}

    def save_checkpoint(self, step: int, tensors: "Mapping[str, np.ndarray]", state: Mapping[str, Any]) -> None:
        """Make the state after `step` steps the one to go on from; the metrics so far become durable first."""
        self._need_lock()
        metrics.sync(self.path / METRICS)
        saved = checkpoint.Checkpoint(step, tensors, state, code_version())
        checkpoint.save(self.path / CHECKPOINTS, self.experiment.fingerprint, saved)

    def load_checkpoint(self) -> "tuple[int, Mapping[str, np.ndarray], Mapping[str, Any]] | None":
        """(step, tensors, state) of the newest sound checkpoint; None if none was ever completed.

        Warns where a newer one is damaged or the code has changed since.
        """
        found = checkpoint.load(self.path / CHECKPOINTS, self.experiment.fingerprint)
        if found is None:
            return None
        if found.code_version != code_version():
            warnings.warn(f"{self.path}: begun with another version of qtrain's code", stacklevel=2)
        return found.step, found.tensors, found.state

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Append one row; give it a "step" so that a resumed run can drop what it will write again."""
        self._need_lock()
        metrics.append(self.path / METRICS, row)

    def truncate_metrics(self, step: int) -> None:
        """Drop the rows after `step`, and a half-written last one."""
        self._need_lock()
        metrics.truncate(self.path / METRICS, step)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows written so far."""
        path = self.path / METRICS
        return metrics.parse(read_checked(path, metrics.MAX_BYTES), path) if path.exists() else []

    def save_weights(self, weights: "Mapping[str, np.ndarray]") -> None:
        """Write the trained weights."""
        self._need_lock()
        tensors.write_tensors(self.path / WEIGHTS, weights)

    def weights(self) -> "dict[str, np.ndarray]":
        """The trained weights of a finished run."""
        path = self.path / WEIGHTS
        return tensors.parse(read_checked(path, tensors.MAX_BYTES), str(path))

    def save_numbers(self, numbers: Mapping[str, Any]) -> None:
        """Write what the weights were trained with: input shape, outputs, exponents of every quantization point."""
        self._need_lock()
        write_atomic(self.path / NUMBERS, to_json(dict(numbers)))

    def numbers(self) -> dict[str, Any]:
        """What `save_numbers` wrote."""
        found = self.read_json(NUMBERS)
        return found if isinstance(found, dict) else {}

    def save_trace(self, trace: Any) -> None:
        """Write the operation trace, given as JSON values."""
        self._need_lock()
        write_atomic(self.path / TRACE, to_json(trace))

    def trace(self) -> Any:
        """The operation trace as JSON values."""
        return self.read_json(TRACE)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result and the checksums of all that belongs to it: the run is finished."""
        self._need_lock()
        metrics.sync(self.path / METRICS)
        with one_line_errors("write", self.path / SUMS):
            (self.path / SUMS).unlink(missing_ok=True)
        write_atomic(self.path / RESULT, to_json(dict(result), indent=2))
        write_sums(self.path, (METRICS, TRACE, WEIGHTS, NUMBERS, RESULT))

    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, None of another."""
        if not (self.path / RESULT).exists():
            return None
        found = self.read_json(RESULT)
        if not isinstance(found, dict):
            raise QtrainError(f"{self.path / RESULT}: not a JSON object")
        return found

    def read_json(self, name: str) -> Any:
        """The value of a JSON file of the run, checked against its checksum if the run is finished."""
        path = self.path / name
        return parse_json(read_checked(path, MAX_JSON_BYTES), str(path))

    def clear(self) -> None:
        """Delete what the run has computed, to begin it anew."""
        self._need_lock()
        for name in (SUMS, RESULT, WEIGHTS, NUMBERS, TRACE, METRICS):
            with one_line_errors("delete", self.path / name):
                (self.path / name).unlink(missing_ok=True)
        checkpoint.clear(self.path / CHECKPOINTS)

    def _need_lock(self) -> None:
        if self._lock is None:
            raise QtrainError(f"{self.path}: opened for reading only")
