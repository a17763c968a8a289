"""A dataset in memory, and what is known of one before it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qtrain.errors import QtrainError

CHUNK = 4096
"""Images squared at a time: the working copy stays small beside the dataset."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images uint8 [n, C, H, W], labels int64 [n] in 0..n_classes-1; both sets have one image shape.

    Raises QtrainError if any of this does not hold.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    n_classes: int
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
                raise QtrainError(f"{self.name}: {part}_images is {images.dtype} {images.shape}, not uint8 nCHW")
            if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
                raise QtrainError(
                    f"{self.name}: {part}_labels is {labels.dtype} {labels.shape} for {len(images)} images"
                )
            if labels.min() < 0 or labels.max() >= self.n_classes:
                raise QtrainError(f"{self.name}: {part}_labels must lie in 0..{self.n_classes - 1}")
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise QtrainError(
                f"{self.name}: training images are {self.train_images.shape[1:]} (C, H, W), test images "
                f"{self.test_images.shape[1:]}; they must agree"
            )
        if len(self.class_names) != self.n_classes:
            raise QtrainError(f"{self.name}: {len(self.class_names)} class names for {self.n_classes} classes")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training set, 255 being 1."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation (over n) of each channel of the training set, 255 being 1; may be 0."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        images = self.train_images
        n_values = images.size // images.shape[1]
        sums = images.sum(axis=(0, 2, 3), dtype=np.int64)
        squares = np.zeros_like(sums)
        for start in range(0, len(images), CHUNK):
            chunk = np.square(images[start : start + CHUNK], dtype=np.uint16)
            squares += chunk.sum(axis=(0, 2, 3), dtype=np.int64)
        # integers until the last step: n * sum(x^2) - sum(x)^2 has no cancellation in Python's int
        pairs = [(int(s), int(q)) for s, q in zip(sums, squares, strict=True)]
        mean = tuple(s / n_values / 255 for s, _ in pairs)
        std = tuple((n_values * q - s * s) ** 0.5 / n_values / 255 for s, q in pairs)
        return mean, std


@dataclass(frozen=True)
class DataInfo:
    """One dataset: its name and the reader of its files, given the data folder."""

    name: str
    read: Callable[[Path], Dataset]
    description: str
    source: str


def every_fifth(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for the 5th, 10th, 15th... instance of each class in the order given: a stratified 80/20 split."""
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[4::5]] = True
    return chosen
