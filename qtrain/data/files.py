"""Finding and reading files that may be missing, broken or hostile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from qtrain.errors import QtrainError

MAX_FILE_BYTES = 2**29
"""No file of the layouts read here comes near it (the largest, CIFAR-100's training batch, has 155 MB)."""


def data_folder(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder given, else the environment variable QTRAIN_DATA, else ./data."""
    return Path(data_dir or os.environ.get("QTRAIN_DATA") or "data")


def find(root: Path, name: str, folders: Sequence[str], markers: Sequence[str]) -> Path:
    """The first file called one of `markers` in one of `folders` below `root`.

    QtrainError says which layout was expected and how to name another folder.
    """
    for folder in folders:
        for marker in markers:
            if (root / folder / marker).is_file():
                return root / folder / marker
    places = ", ".join(str(root / folder) for folder in folders)
    missing = "" if root.is_dir() else f" (there is no folder {root})"
    raise QtrainError(
        f"no {name} data{missing}: expected {' or '.join(markers)} in one of {places}; "
        "name the folder with --data-dir or QTRAIN_DATA"
    )


def read_file(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The whole of a regular file of at most `max_bytes`; QtrainError otherwise."""
    try:
        if not path.is_file():
            raise QtrainError(f"{path}: no such file; the dataset is incomplete")
        if path.stat().st_size > max_bytes:
            raise QtrainError(f"{path}: size {path.stat().st_size} bytes is above the limit of {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise QtrainError(f"{path}: cannot be read ({error.strerror or error})") from error
