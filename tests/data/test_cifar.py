"""CIFAR's binary and pickled layouts, and broken variants."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from qtrain import data
from qtrain.errors import QtrainError

FILES = {
    "cifar10": ([f"data_batch_{i}" for i in range(1, 6)], "test_batch", "cifar-10-batches-bin", "cifar-10-batches-py"),
    "cifar100": (["train"], "test", "cifar-100-binary", "cifar-100-python"),
}
N = 3
"""Images in each file."""


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (N, 3072)).astype(np.uint8)


def labels(name: str, seed: int) -> list[int]:
    return [(seed * 7 + i) % (10 if name == "cifar10" else 100) for i in range(N)]


def write_binary(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train, test, *_ = FILES[name]
    for seed, file in enumerate([*train, test]):
        coarse = b"\x05" if name == "cifar100" else b""
        records = [
            coarse + bytes([label]) + row.tobytes() for label, row in zip(labels(name, seed), pixels(seed), strict=True)
        ]
        (folder / f"{file}.bin").write_bytes(b"".join(records))


def write_pickled(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    train, test, *_ = FILES[name]
    key = "labels" if name == "cifar10" else "fine_labels"
    for seed, file in enumerate([*train, test]):
        batch = {"data": pixels(seed), key: labels(name, seed), "filenames": ["a.png"] * N, "batch_label": "made"}
        (folder / file).write_bytes(pickle.dumps(batch, protocol=2))


@pytest.mark.parametrize("base", ["", "{name}"])
@pytest.mark.parametrize("inside", ["", "{folder}"])
@pytest.mark.parametrize("write", [write_binary, write_pickled])
@pytest.mark.parametrize("name", FILES)
def test_each_layout_gives_what_was_written(tmp_path: Path, name: str, write, inside: str, base: str) -> None:
    train, _, *folders = FILES[name]
    write(name, tmp_path / base.format(name=name) / inside.format(folder=folders[write is write_pickled]))
    dataset = data.load(name, tmp_path)
    n_files = len(train)
    assert dataset.train_images.shape == (N * n_files, 3, 32, 32)
    assert np.array_equal(dataset.train_images.reshape(-1, 3072), np.concatenate([pixels(i) for i in range(n_files)]))
    assert dataset.train_labels.tolist() == [label for i in range(n_files) for label in labels(name, i)]
    assert np.array_equal(dataset.test_images.reshape(-1, 3072), pixels(n_files))
    assert dataset.test_labels.tolist() == labels(name, n_files)
    assert dataset.n_classes == len(dataset.class_names) == (10 if name == "cifar10" else 100)


@pytest.mark.parametrize("name", FILES)
def test_broken_binaries_are_named(tmp_path: Path, name: str) -> None:
    write_binary(name, tmp_path / "made")
    path = tmp_path / "made" / f"{FILES[name][1]}.bin"
    good = path.read_bytes()
    at_label = 0 if name == "cifar10" else 1
    bad_label = bytearray(good)
    bad_label[at_label] = 100
    for content, message in (
        (b"", "size 0 bytes"),
        (good[:-1], "not a whole number of"),
        (good + b"\0", "not a whole number of"),
        (bytes(bad_label), "label 100, expected 0 to"),
    ):
        path.write_bytes(content)
        with pytest.raises(QtrainError, match=message) as caught:
            data.load(name, tmp_path / "made")
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": np.zeros((N, 3071), np.uint8)}, "data is no uint8 array of n x 3072"),
        ({"data": np.zeros(3072 * N, np.uint8)}, "data is no uint8 array"),
        ({"data": np.zeros((N, 3072), np.float32)}, "a call that is not allowed"),
        ({"data": [1, 2]}, "data is no uint8 array"),
        ({"labels": [0, 1]}, "labels is no list of one label per image"),
        ({"labels": [0, 1, 10]}, "labels must be integers in 0..9"),
        ({"labels": [0, 1, -1]}, "labels must be integers in 0..9"),
        ({"labels": [0, 1, True]}, "labels must be integers"),
        ({"labels": "012"}, "labels is no list"),
    ],
)
def test_broken_pickled_batches_are_named(tmp_path: Path, change: dict, message: str) -> None:
    write_pickled("cifar10", tmp_path / "made")
    path = tmp_path / "made/data_batch_3"
    path.write_bytes(pickle.dumps({"data": pixels(0), "labels": labels("cifar10", 0)} | change, protocol=2))
    with pytest.raises(QtrainError, match=message) as caught:
        data.load("cifar10", tmp_path / "made")
    assert str(path) in str(caught.value)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    write_binary("cifar10", tmp_path / "made")
    (tmp_path / "made/data_batch_4.bin").unlink()
    with pytest.raises(QtrainError, match=r"data_batch_4\.bin: no such file"):
        data.load("cifar10", tmp_path / "made")


def test_a_missing_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(QtrainError, match=r"expected train\.bin or train in one of .*cifar-100-python"):
        data.load("cifar100", tmp_path)
