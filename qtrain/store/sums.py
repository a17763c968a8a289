"""SHA256SUMS of a finished run, in the form that `sha256sum --check` reads."""

import re
from collections.abc import Iterable
from pathlib import Path

from qtrain.errors import QtrainError
from qtrain.files import MAX_JSON_BYTES, read_bounded, sha256, write_atomic
from qtrain.store.tensors import MAX_BYTES

SUMS = "SHA256SUMS"


def write_sums(folder: Path, names: Iterable[str]) -> None:
    """Write the checksums of the files that are there."""
    present = [name for name in names if (folder / name).exists()]
    lines = [f"{sha256(read_bounded(folder / name, MAX_BYTES))}  {name}\n" for name in present]
    write_atomic(folder / SUMS, "".join(lines).encode())


def read_checked(path: Path, max_bytes: int) -> bytes:
    """The content of a file; raises QtrainError if its run's checksums have another sum for it."""
    content = read_bounded(path, max_bytes)
    sums = path.with_name(SUMS)
    if sums.exists():
        text = read_bounded(sums, MAX_JSON_BYTES).decode("ascii", "replace")
        expected = {name: total for total, name in re.findall(r"(?m)^(\w{64})  (.+)$", text)}
        if path.name in expected and expected[path.name] != sha256(content):
            raise QtrainError(f"{path}: damaged (its checksum does not match {SUMS})")
    return content
