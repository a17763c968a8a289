"""Files that are whole or absent: atomic writing, bounded reading, strict JSON, one-line errors."""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError

MAX_JSON_BYTES = 256 << 20  # a trace of thousands of distinct operations takes a few MB


@contextmanager
def one_line_errors(what: str, path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a QtrainError naming the file and the reason."""
    try:
        yield
    except OSError as error:
        raise QtrainError(f"cannot {what} {path}: {error.strerror or error}") from None


def write_atomic(path: Path, content: bytes) -> None:
    """Write the whole file durably, or leave the old one; raises QtrainError (disk full, read-only, ...).

    One process writes at a time (the run's lock), so the temporary name is fixed and a killed writer's
    leftover is overwritten by the next.
    """
    temporary = path.with_name(path.name + ".tmp")
    with one_line_errors("write", path):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, 0o666)
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def write_all(descriptor: int, content: bytes) -> None:
    """os.write until everything is written."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file; raises QtrainError if it is none, or larger than `max_bytes`."""
    with one_line_errors("read", path):
        # O_NONBLOCK: opening a FIFO would otherwise wait for a writer for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise QtrainError(f"cannot read {path}: not a file")
            if status.st_size > max_bytes:
                raise QtrainError(f"cannot read {path}: {status.st_size} bytes, more than the {max_bytes} allowed")
            return file.read(max_bytes + 1)


def parse_json(content: bytes, source: str) -> Any:
    """The value of a JSON text; raises QtrainError opening with `source`."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise QtrainError(f"{source}: not valid JSON ({reason})") from None


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """JSON text of plain values and NumPy scalars. JSON has no NaN or infinity: they become null."""
    return (json.dumps(plain(value), allow_nan=False, indent=indent) + "\n").encode()


def plain(value: Any) -> Any:
    """`value` with JSON's own types only; raises TypeError for what has none."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        return plain(value.item())
    raise TypeError(f"no JSON for {type(value).__name__}")


def sha256(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
