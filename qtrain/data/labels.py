"""Labels that are wrong, and labels that are few."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qtrain.data.streams import generator
from qtrain.errors import QtrainError

NOISE, SUBSET = 5, 6
"""Tell these random numbers from others'."""


def noisy(labels: NDArray[np.int64], n_classes: int, rate: float, seed: int) -> NDArray[np.int64]:
    """`labels` [n] of which round(rate n), drawn at random, are replaced by a class drawn uniformly from all, the true
    one included (the noise of Huang et al. 2020, arXiv 2002.10319)."""
    rng = generator(seed, NOISE)
    changed = labels.copy()
    chosen = rng.permutation(len(labels))[: round(rate * len(labels))]
    changed[chosen] = rng.integers(0, n_classes, len(chosen))
    return changed


def labelled(labels: NDArray[np.int64], n_labels: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices of `n_labels` instances drawn at random, equally many of each class (the first classes one more
    where they don't divide). Raises QtrainError where a class has too few, or n_labels is below the classes."""
    classes = np.unique(labels)
    if n_labels < len(classes):
        raise QtrainError(f"data.n_labels (--n-labels) = {n_labels}: must be at least one a class, {len(classes)}")
    rng = generator(seed, SUBSET)
    chosen = []
    for position, label in enumerate(classes):
        wanted = n_labels // len(classes) + (position < n_labels % len(classes))
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) < wanted:
            raise QtrainError(
                f"data.n_labels (--n-labels) = {n_labels}: class {label} has only {len(members)} instances"
            )
        chosen.append(members[:wanted])
    return np.sort(np.concatenate(chosen))
