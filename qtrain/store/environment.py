"""env.json: what a run was carried out with. Reads package metadata only: nothing heavy is imported."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("qtrain", "numpy", "torch", "brevitas", "safetensors", "scikit-learn", "click", "rich")


def describe() -> dict[str, Any]:
    """Versions, platform, cores, commit of the source tree ("" outside one), command line and time (UTC)."""
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "n_cpus": os.cpu_count(),
        "commit": commit(Path(__file__).parent.parent.parent),
    }


def commit(folder: Path) -> str:
    """The commit checked out in `folder`, with "+changes" if files differ from it; "" if there is none."""
    if not (folder / ".git").exists():  # an installed package may lie beneath a checkout of something else
        return ""
    head = _git(folder, "rev-parse", "HEAD")
    return head + "+changes" if head and _git(folder, "status", "--porcelain") else head


def _git(folder: Path, *arguments: str) -> str:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
