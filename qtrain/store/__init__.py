"""Runs on disk: whole or absent, checked when read, one writer at a time."""

from qtrain.files import write_atomic
from qtrain.store.index import find_runs, finished_runs
from qtrain.store.run import Run
from qtrain.store.tensors import read_tensors, write_tensors

__all__ = ["Run", "find_runs", "finished_runs", "read_tensors", "write_atomic", "write_tensors"]
