"""Loading by name: the shipped digits, the validation split, where files are looked for, a dataset's own checks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits

from qtrain import data
from qtrain.data.dataset import Dataset, every_fifth
from qtrain.data.files import read_file
from qtrain.errors import QtrainError


def made(images: np.ndarray, labels: list[int] | None = None, n_classes: int = 2) -> Dataset:
    labels_array = np.array(labels or [0] * len(images), dtype=np.int64)
    names = tuple(str(i) for i in range(n_classes))
    return Dataset("made", images, labels_array, images[:1], labels_array[:1], n_classes, names)


def test_digits_are_all_there_once_scaled_from_16_to_255() -> None:
    digits = data.load("digits")
    original = load_digits()
    assert digits.input_shape == (1, 8, 8)
    assert (len(digits.train_labels), len(digits.test_labels)) == (1442, 355)
    both = np.concatenate([digits.train_images, digits.test_images])[:, 0]
    # 255 / 16 = 15.94 > 1, so rounding back is exact
    assert sorted(map(bytes, np.rint(both * (16 / 255)).astype(np.uint8))) == sorted(
        map(bytes, original.images.astype(np.uint8))
    )
    assert (both.min(), both.max()) == (0, 255)
    counts = np.bincount(original.target)
    assert np.bincount(digits.test_labels).tolist() == (counts // 5).tolist()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
def test_every_fifth_takes_a_fifth_of_each_class_rounded_down(labels: list[int]) -> None:
    array = np.array(labels, dtype=np.int64)
    chosen = every_fifth(array)
    for label in range(4):
        assert chosen[array == label].tolist() == [i % 5 == 4 for i in range(labels.count(label))]


@pytest.mark.parametrize("val_split", [0.1, 0.25])
def test_a_validation_split_parts_the_training_set_and_leaves_the_test_set_alone(val_split: float) -> None:
    whole, split = data.load("digits"), data.load("digits", val_split=val_split, seed=5)
    n = len(whole.train_labels)
    assert len(split.test_labels) == round(val_split * n)

    def rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
        return sorted(bytes(image) + bytes([label]) for image, label in zip(images, labels, strict=True))

    parts = rows(split.train_images, split.train_labels) + rows(split.test_images, split.test_labels)
    assert sorted(parts) == rows(whole.train_images, whole.train_labels)
    again, other = (data.load("digits", val_split=val_split, seed=seed) for seed in (5, 6))
    assert np.array_equal(again.test_images, split.test_images)
    assert not np.array_equal(other.test_images, split.test_images)


@pytest.mark.parametrize("arguments", [{"val_split": 1.0}, {"val_split": -0.1}, {"val_split": float("nan")},
                                       {"val_split": 1e-6}, {"val_split": 0.5, "seed": -1}])  # fmt: skip
def test_impossible_splits_are_refused(arguments: dict) -> None:
    with pytest.raises(QtrainError, match="val_split"):
        data.load("digits", **arguments)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(QtrainError, match="unknown dataset 'cifar-10'; did you mean 'cifar10'"):
        data.load("cifar-10")


def test_the_folder_comes_from_the_environment_or_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QTRAIN_DATA", raising=False)
    with pytest.raises(QtrainError, match="there is no folder data"):
        data.load("mnist")
    monkeypatch.setenv("QTRAIN_DATA", str(tmp_path / "there"))
    with pytest.raises(QtrainError, match=r"there is no folder .*/there\)"):
        data.load("mnist")


def test_files_too_large_missing_or_unreadable_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with pytest.raises(QtrainError, match="file: no such file"):
        read_file(path)
    path.write_bytes(b"1234")
    assert read_file(path, max_bytes=4) == b"1234"
    with pytest.raises(QtrainError, match="file: size 4 bytes is above the limit of 3"):
        read_file(path, max_bytes=3)

    def fail(self: Path) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(QtrainError, match=r"file: cannot be read \(Input/output error\)"):
        read_file(path)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))))
def test_mean_and_std_are_those_of_the_pixels_over_255(images: np.ndarray) -> None:
    dataset = made(images)
    assert dataset.mean == pytest.approx((images / 255).mean(axis=(0, 2, 3)), abs=1e-12)
    assert dataset.std == pytest.approx((images / 255).std(axis=(0, 2, 3)), abs=1e-9)


def test_a_constant_channel_has_exactly_no_deviation() -> None:
    assert made(np.full((5000, 1, 3, 3), 77, np.uint8)).std == (0.0,)


IMAGES = np.zeros((2, 1, 3, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "n_classes", "message"),
    [
        (IMAGES.astype(np.float32), [0, 1], 2, "train_images is float32"),
        (IMAGES[:, 0], [0, 1], 2, "train_images is uint8"),
        (IMAGES[:0], [], 2, "train_images is uint8"),
        (IMAGES, [0, 1, 1], 2, "train_labels is int64 .* for 2 images"),
        (IMAGES, [0, 2], 2, r"train_labels must lie in 0\.\.1"),
        (IMAGES, [-1, 0], 2, r"train_labels must lie in 0\.\.1"),
    ],
)
def test_a_dataset_checks_itself(images: np.ndarray, labels: list[int], n_classes: int, message: str) -> None:
    with pytest.raises(QtrainError, match=message):
        made(images, labels, n_classes)


def test_class_names_are_one_a_class() -> None:
    with pytest.raises(QtrainError, match="1 class names for 2 classes"):
        Dataset("made", IMAGES, np.zeros(2, np.int64), IMAGES, np.zeros(2, np.int64), 2, ("a",))


def test_no_torch_and_no_pillow_for_the_digits() -> None:
    code = (
        "import sys; from qtrain import data; data.load('digits'); sys.exit(bool({'torch', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
