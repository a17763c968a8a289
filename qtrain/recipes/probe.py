"""A linear classifier on frozen features: how good they are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS = 200


def linear_probe(
    features: NDArray[Any], labels: NDArray[np.int64], asked: NDArray[Any], wanted: NDArray[np.int64]
) -> tuple[float, float]:
    """(accuracy, mean loss in nats) on `asked` [m, d] of a logistic regression (scikit-learn's, its default penalty) on
    `features` [n, d], both standardized by the latter's moments. A class without any label is never answered; its
    loss is that of probability 1e-12."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(0), features.std(0)
    std[std == 0] = 1.0
    classifier = LogisticRegression(max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # features without structure: the accuracy says so
        classifier.fit((features - mean) / std, labels)
    p = classifier.predict_proba((asked - mean) / std)
    places = {label: i for i, label in enumerate(classifier.classes_)}
    of_wanted = np.array([p[i, places[label]] if label in places else 0.0 for i, label in enumerate(wanted)])
    accuracy = float((classifier.classes_[p.argmax(1)] == wanted).mean())
    return accuracy, float(-np.log(np.maximum(of_wanted, 1e-12)).mean())
