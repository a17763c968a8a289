"""Finding runs: the folders themselves are the index."""

import os
import warnings
from pathlib import Path

from qtrain.errors import QtrainError
from qtrain.store.folder import EXPERIMENT
from qtrain.store.run import RESULT, Run


def find_runs(root: str | Path) -> list[Path]:
    """The run folders at or beneath `root`, sorted; links are not followed, runs not searched for runs."""
    if not Path(root).is_dir():
        raise QtrainError(f"{root}: no such folder")
    found = []
    for folder, subfolders, files in os.walk(root):
        if EXPERIMENT in files:
            found.append(Path(folder))
            subfolders.clear()
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
    return sorted(found)


def finished_runs(root: str | Path) -> dict[str, Path]:
    """The finished runs at or beneath `root` by id; damaged ones are left out with a warning."""
    found = {}
    for path in find_runs(root):
        if (path / RESULT).exists():
            try:
                run = Run.open(path)
                run.result()
                found[run.id] = path
            except QtrainError as error:
                warnings.warn(str(error), stacklevel=2)
    return found
