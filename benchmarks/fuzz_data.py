"""Spoiled files of datasets, read as qtrain reads them: IDX, CIFAR in binary and pickled form, PNG and JPEG."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from random import Random

import numpy as np
from fuzz_mutations import spoiled_bytes

from qtrain import data
from qtrain.data.dataset import Dataset


def idx(rng: Random, folder: Path) -> None:
    root = folder / "mnist"
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    chosen, zipped = rng.choice(names), rng.random() < 0.4
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name in names:
        shape = (3, 4, 4) if "images" in name else (3,)
        content = bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
        content += bytes([7]) * (48 if "images" in name else 3)
        if name == chosen and rng.random() < 0.7:
            content = spoiled_bytes(rng, content, 16)
        if zipped:
            content = gzip.compress(content, 1)
        if name == chosen and zipped and rng.random() < 0.5:
            content = spoiled_bytes(rng, content, 18)
        (root / (name + ".gz" * zipped)).write_bytes(content)
    _all_of(data.load("mnist", folder))


def cifar(rng: Random, folder: Path) -> None:
    shutil.rmtree(folder / "cifar-100-binary", ignore_errors=True)
    (folder / "cifar-100-binary").mkdir()
    for name in ("train", "test"):
        content = bytes([1, 2]) + bytes(3072) + bytes([3, 99]) + bytes(3072)
        (folder / "cifar-100-binary" / f"{name}.bin").write_bytes(spoiled_bytes(rng, content, 4))
    _all_of(data.load("cifar100", folder))


def pickled(rng: Random, folder: Path) -> None:
    shutil.copytree(folder / "valid", folder / "cifar-100-python", dirs_exist_ok=True)
    file = folder / "cifar-100-python" / rng.choice(("train", "test"))
    file.write_bytes(spoiled_bytes(rng, file.read_bytes(), 300))
    _all_of(data.load("cifar100", folder))


def prepare_pickled(folder: Path) -> None:
    import pickle

    (folder / "valid").mkdir()
    batch = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [0, 99], "coarse_labels": [0, 1], "filenames": ["a"]}
    for name in ("train", "test"):
        (folder / "valid" / name).write_bytes(pickle.dumps(batch, protocol=2))


def image(rng: Random, folder: Path) -> None:
    file = folder / "imagefolder" / rng.choice("ab") / f"{rng.randrange(5)}.{rng.choice(('png', 'jpg'))}"
    whole = file.read_bytes()
    try:
        file.write_bytes(spoiled_bytes(rng, whole, 40))
        _all_of(data.load("imagefolder", folder))
    finally:
        file.write_bytes(whole)


def prepare_images(folder: Path) -> None:
    from PIL import Image

    for label in "ab":
        (folder / "imagefolder" / label).mkdir(parents=True)
        for i in range(5):
            pixels = Image.fromarray(np.full((9, 8, 3), 20 * i, np.uint8))
            for suffix in ("png", "jpg"):
                pixels.save(folder / "imagefolder" / label / f"{i}.{suffix}")


def _all_of(dataset: Dataset) -> None:
    assert dataset.train_labels.max() < dataset.n_classes
    assert len(dataset.mean) == dataset.train_images.shape[1]
