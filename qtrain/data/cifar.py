"""CIFAR-10 and CIFAR-100 in their binary and their pickled layout.

A record is one label byte (CIFAR-100: a coarse and a fine one) and 3,072 pixel bytes: the red, green and blue plane
of 32x32. Classes of CIFAR-100 are called by their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qtrain.data.dataset import DataInfo, Dataset
from qtrain.data.files import find, read_file
from qtrain.data.pickles import read_pickle
from qtrain.errors import QtrainError

IMAGE = (3, 32, 32)
N_PIXELS = 3072
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Layout:
    """Where one of the two keeps what; file names are without the binary layout's .bin."""

    name: str
    binary_folder: str
    pickle_folder: str
    train_files: tuple[str, ...]
    test_file: str
    label_bytes: int  # the last one is the label
    label_key: str
    class_names: tuple[str, ...]


LAYOUT10 = Layout(
    "cifar10", "cifar-10-batches-bin", "cifar-10-batches-py",
    tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", 1, "labels", CIFAR10,
)  # fmt: skip
LAYOUT100 = Layout(
    "cifar100", "cifar-100-binary", "cifar-100-python", ("train",), "test", 2, "fine_labels",
    tuple(str(i) for i in range(100)),
)  # fmt: skip


def _read_binary(path: Path, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    data = read_file(path)
    record = layout.label_bytes + N_PIXELS
    if not data or len(data) % record:
        raise QtrainError(f"{path}: size {len(data)} bytes is not a whole number of {record}-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    if labels.max() >= len(layout.class_names):
        raise QtrainError(f"{path}: label {labels.max()}, expected 0 to {len(layout.class_names) - 1}")
    return records[:, layout.label_bytes :], labels


def _read_pickled(path: Path, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = read_pickle(path)
    images, labels = batch.get("data"), batch.get(layout.label_key)
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != N_PIXELS:
        raise QtrainError(f"{path}: data is no uint8 array of n x {N_PIXELS}")
    if not isinstance(labels, list) or len(labels) != len(images):
        raise QtrainError(f"{path}: {layout.label_key} is no list of one label per image")
    if not all(type(label) is int and 0 <= label < len(layout.class_names) for label in labels):
        raise QtrainError(f"{path}: {layout.label_key} must be integers in 0..{len(layout.class_names) - 1}")
    return images, np.array(labels, dtype=np.int64)


def _read(root: Path, layout: Layout) -> Dataset:
    name, first = layout.name, layout.train_files[0]
    inside = (layout.binary_folder, layout.pickle_folder, ".")
    marker = find(root, name, [f"{base}/{sub}" for base in (name, ".") for sub in inside], (f"{first}.bin", first))
    read = _read_binary if marker.suffix else _read_pickled

    def part(files: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        parts = [read(marker.with_name(file + marker.suffix), layout) for file in files]
        images = np.concatenate([images for images, _ in parts]).reshape(-1, *IMAGE)
        return images, np.concatenate([labels for _, labels in parts])

    train, test = part(layout.train_files), part((layout.test_file,))
    return Dataset(name, *train, *test, len(layout.class_names), layout.class_names)


KRIZHEVSKY = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
DATASETS = (
    DataInfo(
        "cifar10", partial(_read, layout=LAYOUT10), "photographs of 10 classes, 32x32 RGB, 50,000 + 10,000",
        KRIZHEVSKY,
    ),
    DataInfo(
        "cifar100", partial(_read, layout=LAYOUT100), "the same of 100 classes",
        KRIZHEVSKY,
    ),
)  # fmt: skip
