"""Weights a run starts from, and its normalizations: the file may be of the model before or after they are chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from qtrain.errors import QtrainError
from qtrain.experiment import Experiment
from qtrain.layers.norms.swap import exchange
from qtrain.store.tensors import read_tensors


def load_weights(model: nn.Module, path: str) -> None:
    """Put the tensors of a safetensors file into `model`; raises QtrainError unless names and shapes agree."""
    tensors = read_tensors(Path(path))
    own = model.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise QtrainError(f"{path}: tensor {name!r} is missing; give weights of the same model")
        if tuple(tensors[name].shape) != tuple(value.shape):
            raise QtrainError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, the model's is {tuple(value.shape)}"
            )
    model.load_state_dict({name: torch.from_numpy(np.array(tensors[name])) for name in own})


def is_of(model: nn.Module, path: str) -> bool:
    """Whether a safetensors file names every tensor of `model`."""
    return model.state_dict().keys() <= read_tensors(Path(path)).keys()


def choose_norms(model: nn.Module, input_shape: tuple[int, ...], experiment: Experiment) -> None:
    """Exchange the batch normalizations of `model` as the experiment says (qtrain.layers.norms.swap)."""
    if any(norm != "batch" for norm in experiment.norms):
        exchange(model, input_shape, experiment.norm_for, experiment.model)


def prepare(
    model: nn.Module, input_shape: tuple[int, ...], experiment: Experiment, pretrain: Callable[[], None] = lambda: None
) -> None:
    """Give `model` the weights of `experiment.init`, `pretrain` it, and choose its normalizations. Raises QtrainError
    where the file is of neither the model as it is built nor as it is then."""
    first = bool(experiment.init) and is_of(model, experiment.init)
    if first:
        load_weights(model, experiment.init)
    pretrain()
    choose_norms(model, input_shape, experiment)
    if experiment.init and not first:
        load_weights(model, experiment.init)
