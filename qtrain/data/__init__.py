"""Datasets read from the standard layouts into NumPy arrays; nothing here needs torch."""

from __future__ import annotations

import importlib
import os
import pkgutil
from dataclasses import replace
from functools import cache

import numpy as np

from hwmodel.errors import unknown
from qtrain.data.dataset import DataInfo, Dataset
from qtrain.data.files import data_folder
from qtrain.data.streams import HOLD_OUT, generator
from qtrain.errors import QtrainError

__all__ = ["DataInfo", "Dataset", "catalog", "load", "names"]


@cache
def catalog() -> dict[str, DataInfo]:
    """Every dataset by name: each module of this folder that has a tuple DATASETS adds its own."""
    modules = [importlib.import_module(f"{__name__}.{entry.name}") for entry in pkgutil.iter_modules(__path__)]
    found = {info.name: info for module in modules for info in getattr(module, "DATASETS", ())}
    return dict(sorted(found.items()))


def names() -> tuple[str, ...]:
    """Names of the datasets."""
    return tuple(catalog())


def load(name: str, data_dir: str | os.PathLike[str] | None = None, val_split: float = 0.0, seed: int = 0) -> Dataset:
    """The dataset `name` from `data_dir` (default: the environment variable QTRAIN_DATA, else ./data).

    With `val_split` the last round(val_split * n) of a permutation of the n training instances, drawn from
    `seed`, take the place of the test set, which is left alone: settings are tuned without looking at it.
    Raises QtrainError naming file and field where data are missing, broken or not of the layout.
    """
    if name not in catalog():
        raise QtrainError(unknown("dataset", name, catalog()))
    if not 0 <= val_split < 1 or seed < 0:
        raise QtrainError(f"val_split {val_split} must lie in 0 to 1 (1 excluded), seed {seed} be at least 0")
    dataset = catalog()[name].read(data_folder(data_dir))
    return hold_out(dataset, val_split, seed) if val_split else dataset


def hold_out(dataset: Dataset, val_split: float, seed: int) -> Dataset:
    """`dataset` with part of its training set as its test set, as `load` says; both keep their order."""
    n = len(dataset.train_labels)
    n_held = round(val_split * n)
    if not 0 < n_held < n:
        raise QtrainError(f"val_split {val_split} of {n} training instances leaves one part empty")
    order = generator(seed, 0, HOLD_OUT).permutation(n)
    kept, held = np.sort(order[: n - n_held]), np.sort(order[n - n_held :])
    return replace(
        dataset,
        train_images=dataset.train_images[kept], train_labels=dataset.train_labels[kept],
        test_images=dataset.train_images[held], test_labels=dataset.train_labels[held],
    )  # fmt: skip
