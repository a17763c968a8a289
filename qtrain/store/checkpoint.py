"""Checkpoints: <step>.safetensors and <step>.json, whole, checked, and the one before kept.

The JSON is written last and makes the checkpoint exist; it holds the SHA-256 of the tensors and of its own
body. A kill at any moment leaves the newest complete checkpoint, or the one before it.
"""

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtrain.errors import QtrainError
from qtrain.files import MAX_JSON_BYTES, one_line_errors, parse_json, read_bounded, sha256, write_atomic
from qtrain.store import tensors as tensor_files

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
KEPT = 2  # the newest, and the one before it in case the newest turns out damaged
_KEYS = {"tensors_bytes", "tensors_sha256", "state", "code_version"}


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on: arrays by name, and a state of JSON values (NaN and infinity too)."""

    step: int
    tensors: "Mapping[str, np.ndarray]"
    state: Mapping[str, Any]
    code_version: str = ""


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in the folder, newest first, whether they are sound or not."""
    with one_line_errors("read", folder):
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    found = (re.fullmatch(r"([0-9]{1,12})\.json", name) for name in names)
    return sorted((int(match[1]) for match in found if match), reverse=True)


def save(folder: Path, fingerprint: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint of the experiment with this fingerprint and delete all but the one before it.

    Raises QtrainError (disk full, ...); what was there is then still there.
    """
    with one_line_errors("write", folder):
        folder.mkdir(exist_ok=True)
    content = tensor_files.dump(checkpoint.tensors)
    body: dict[str, Any] = {
        "format": FORMAT,
        "step": checkpoint.step,
        "experiment": fingerprint,
        "code_version": checkpoint.code_version,
        "tensors_bytes": len(content),
        "tensors_sha256": sha256(content),
        "state": dict(checkpoint.state),
    }
    body = json.loads(json.dumps(body, default=lambda scalar: scalar.item()))  # what it will be read back as
    text = json.dumps({"sha256": _body_sha256(body), "body": body}) + "\n"
    write_atomic(folder / f"{checkpoint.step}.safetensors", content)
    write_atomic(folder / f"{checkpoint.step}.json", text.encode())
    _delete_all_but([step for step in steps(folder) if step <= checkpoint.step][:KEPT], folder)


def load(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest sound checkpoint, or None if there is none at all.

    Warns where a newer one is damaged; raises QtrainError if all are, or belong to another experiment.
    """
    problems: list[str] = []
    for step in steps(folder):
        try:
            checkpoint = _read(folder, step, fingerprint)
        except QtrainError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going on from step {step}", stacklevel=2)
        return checkpoint
    if problems:
        raise QtrainError(f"no sound checkpoint is left: {'; '.join(problems[:KEPT])}")
    return None


def _read(folder: Path, step: int, fingerprint: str) -> Checkpoint:
    path = folder / f"{step}.json"
    record = parse_json(read_bounded(path, MAX_JSON_BYTES), str(path))
    body = record.get("body") if isinstance(record, dict) else None
    if not isinstance(body, dict) or record.get("sha256") != _body_sha256(body):
        raise QtrainError(f"{path}: damaged (its checksum does not match)")
    if body.get("format") != FORMAT:
        raise QtrainError(f"{path}: checkpoint format {body.get('format')!r:.20}, this version reads {FORMAT}")
    if (body.get("experiment"), body.get("step")) != (fingerprint, step):
        raise QtrainError(f"{path}: belongs to another experiment or step")
    if _KEYS - body.keys() or not isinstance(body["state"], dict):
        raise QtrainError(
            f"{path}: not a whole checkpoint (it lacks {', '.join(sorted(_KEYS - body.keys())) or 'state'})"
        )
    path = folder / f"{step}.safetensors"
    content = read_bounded(path, tensor_files.MAX_BYTES)
    if len(content) != body["tensors_bytes"] or sha256(content) != body["tensors_sha256"]:
        raise QtrainError(f"{path}: damaged (its checksum does not match)")
    return Checkpoint(step, tensor_files.parse(content, str(path)), body["state"], body["code_version"])


def _body_sha256(body: dict[str, Any]) -> str:
    return sha256(json.dumps(body, sort_keys=True).encode())


def clear(folder: Path) -> None:
    """Delete all checkpoints."""
    if folder.is_dir():
        _delete_all_but([], folder)


def _delete_all_but(kept: list[int], folder: Path) -> None:
    names = {f"{step}{suffix}" for step in kept for suffix in (".json", ".safetensors")}
    with one_line_errors("tidy", folder):
        # JSON first: a checkpoint half deleted must not look like a damaged one
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix):
            if re.fullmatch(r"[0-9]{1,12}\.(json|safetensors)(\.tmp)?", path.name) and path.name not in names:
                path.unlink(missing_ok=True)
