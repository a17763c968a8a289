"""Whose folder is this? A run's folder belongs to one experiment from its first file on."""

from pathlib import Path
from typing import Any

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment, code_version, load, options
from qtrain.files import one_line_errors, to_json, write_atomic
from qtrain.store.environment import describe

EXPERIMENT, ENVIRONMENT, LOCK = "experiment.toml", "env.json", "lock"
# What a process killed before EXPERIMENT was written may leave: the folder still counts as empty.
_BEGUN = {LOCK, ENVIRONMENT, ENVIRONMENT + ".tmp", EXPERIMENT + ".tmp"}


def settle(path: Path, experiment: Experiment) -> None:
    """Make `path`, locked by the caller, this experiment's folder; raises QtrainError if it is another's."""
    if (path / EXPERIMENT).exists():
        there = load(path / EXPERIMENT)
        if there.fingerprint != experiment.fingerprint:
            raise QtrainError(f"{path} holds another experiment ({_difference(there, experiment)}): choose another")
    else:
        with one_line_errors("read", path):
            others = sorted({entry.name for entry in path.iterdir()} - _BEGUN)
        if others:
            raise QtrainError(f"{path} is not empty and not a run ({others[0]}): choose another folder")
        about = {"run_id": experiment.id, "code_version": code_version()} | describe()
        write_atomic(path / ENVIRONMENT, to_json(about, indent=2))
    # last, because this file makes the folder a run; anew each time: devices or threads may differ now
    write_atomic(path / EXPERIMENT, experiment.to_toml().encode())


def _difference(there: Experiment, here: Experiment) -> str:
    for option in options():
        old, new = (_value(experiment, option.key) for experiment in (there, here))
        if option.changes_result and old != new:
            return f"its {option.key} is {old!r:.60}, not {new!r:.60}"
    return "its layers differ"


def _value(experiment: Any, key: str) -> Any:
    for name in key.split("."):
        experiment = getattr(experiment, name)
    return experiment
