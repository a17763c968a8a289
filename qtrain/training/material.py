"""What a run learns from: images and labels as the device has them, their stream and their drift."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qtrain.data.dataset import Dataset
from qtrain.data.labels import labelled, noisy
from qtrain.data.ordered import batches
from qtrain.data.streams import Batches
from qtrain.data.transforms import resize
from qtrain.experiment import Experiment
from qtrain.recipes import Material, registry

DEFAULT_EPOCHS = {"digits": 20}
"""Passes where neither epochs nor steps are given: the small digits need more than the others' one."""
_LEAST_STD = 1e-3
"""A channel that never changes is not divided by zero."""


def material(experiment: Experiment, dataset: Dataset, shape: tuple[int, int, int], reconstruct: bool) -> Material:
    """The training set as the recipe of `experiment` gets it: label noise put in, and where labels are few (n_labels)
    the others left out, for a recipe that needs one of each instance."""
    settings, seed = experiment.data, experiment.seed
    images = standardized(dataset.train_images, shape, dataset)
    labels = np.array(dataset.train_labels)
    if settings.label_noise:
        labels = noisy(labels, dataset.n_classes, settings.label_noise, seed)
    known = labelled(dataset.train_labels, settings.n_labels, seed) if settings.n_labels else np.arange(len(labels))
    if registry.needs_labels(experiment):
        images, labels, known = images[torch.from_numpy(known)], labels[known], np.arange(len(known))
    mean, std = _moments(dataset, shape)
    n_steps = stream(experiment, labels).n_steps
    return Material(
        images, torch.from_numpy(labels), torch.from_numpy(known),
        experiment.n_classes or dataset.n_classes, n_steps, experiment.train.batch_size, seed, settings.flip,
        reconstruct, 1 / std, -mean / std, (1 - mean) / std,
    )  # fmt: skip


def stream(experiment: Experiment, labels: np.ndarray) -> Batches:
    """The order in which a run sees the instances with these labels."""
    settings = experiment.train
    epochs = settings.epochs or DEFAULT_EPOCHS.get(experiment.data.name, 1)
    length = {"n_epochs": epochs}
    if settings.steps:
        whole = Batches(len(labels), settings.batch_size, n_epochs=epochs, seed=experiment.seed).n_steps
        length = {"n_steps": min(settings.steps, whole) if settings.epochs else settings.steps}
    return batches(experiment.stream, labels, settings.batch_size, experiment.seed, **length)


def standardized(images: Any, shape: tuple[int, int, int], dataset: Dataset) -> Tensor:
    """uint8 images as the network reads them: resized (qtrain.data.transforms.resize), over 255, minus the training
    set's mean, over its standard deviation, by channel. On a device this is a table of 256 entries a channel."""
    same = images.shape[1:] == shape
    pixels = torch.from_numpy(np.array(images) if same else resize(images, shape)).float() / 255
    mean, std = _moments(dataset, shape)
    return ((pixels - mean) / std).contiguous()


def _moments(dataset: Dataset, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C, 1, 1] of the training set's pixels, 255 being 1."""
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std).clamp(min=_LEAST_STD)
    if len(mean) != shape[0]:  # the resizing changed the number of channels
        mean, std = mean.mean().expand(shape[0]), std.mean().expand(shape[0])
    return mean.view(-1, 1, 1), std.view(-1, 1, 1)
