"""The handwritten digits that scikit-learn ships: nothing to download."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qtrain.data.dataset import DataInfo, Dataset, every_fifth

LEVELS = 16
"""scikit-learn's images hold 0..16: counts of set pixels in 4x4 blocks."""


def _read(_root: Path) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / LEVELS)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    test = every_fifth(labels)
    return Dataset(
        "digits", images[~test], labels[~test], images[test], labels[test], 10, tuple("0123456789")
    )  # fmt: skip


DATASETS = (
    DataInfo(
        "digits", _read,
        "handwritten digits, 8x8 gray, 1,442 + 355: the 5th, 10th, 15th... of each class are the test set",
        "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998 (scikit-learn's copy)",
    ),
)  # fmt: skip
