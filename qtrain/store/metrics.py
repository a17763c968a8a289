"""metrics.jsonl: one JSON object a line, appended; a line cut short by a kill is dropped."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.files import one_line_errors, parse_json, read_bounded, to_json, write_all, write_atomic

MAX_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 16


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Append one row (NaN becomes null). On failure the file is as before and QtrainError is raised."""
    line = to_json(dict(row))
    with one_line_errors("write", path):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o666)
        try:
            end = _drop_half_line(descriptor)
            try:
                write_all(descriptor, line)
            except OSError:
                os.truncate(descriptor, end)
                raise
        finally:
            os.close(descriptor)


def parse(content: bytes, path: Path) -> list[dict[str, Any]]:
    """All whole rows; raises QtrainError naming the line that is no JSON object."""
    lines = content.split(b"\n")[:-1]
    rows = [parse_json(line, f"{path}: line {number}") for number, line in enumerate(lines, 1)]
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise QtrainError(f"{path}: line {number}: not a JSON object")
    return rows


def truncate(path: Path, step: int) -> None:
    """Keep the rows whose "step" is at most `step`; a run resumed from there writes the others again."""
    if path.exists():
        kept = [row for row in parse(read_bounded(path, MAX_BYTES), path) if _step(row) <= step]
        write_atomic(path, b"".join(to_json(row) for row in kept))


def _step(row: dict[str, Any]) -> int:
    step = row.get("step")
    return step if isinstance(step, int) else 0


def sync(path: Path) -> None:
    """Make the rows written so far survive a power cut."""
    if path.exists():
        with one_line_errors("write", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _drop_half_line(descriptor: int) -> int:
    """Cut what follows the last newline; returns the file's size in bytes."""
    size = end = os.lseek(descriptor, 0, os.SEEK_END)
    while end:
        start = max(0, end - _CHUNK_BYTES)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        end = start + newline + 1
        if newline >= 0:
            break
    if end < size:
        os.truncate(descriptor, end)
    return end
