"""Small networks to train: plain torch modules that know neither number formats nor costs.

Listing names does not import torch; building does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qtrain.errors import QtrainError
from qtrain.models.catalog import default_filter, names, shipped
from qtrain.models.model_info import ModelInfo, Shape

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelInfo", "build", "default_filter", "info", "names"]


def info(name: str, input_shape: Shape | None = None, n_classes: int | None = None) -> ModelInfo:
    """What is known of a model; `input_shape` (C, H, W) and `n_classes` replace the native ones where given.

    `name` is a shipped model's or the user's "package.module:factory", whose code is then run. Raises
    QtrainError for an unknown name, a size below 1, fewer than 2 classes, and any fault of a user's factory.
    """
    if ":" in name:
        from qtrain.models._user import user_info

        return user_info(name, input_shape, n_classes)
    found = shipped(name)
    shape = found.input_shape if input_shape is None else input_shape
    if len(shape) != 3 or min(shape) < 1:
        raise QtrainError(f"model {name}: input shape {shape}; give C,H,W of at least 1 each")
    if found.task == "reconstruct":
        return replace(found, input_shape=shape)  # it has no classes
    classes = found.n_classes if n_classes is None else n_classes
    if classes < 2:
        raise QtrainError(f"model {name}: {classes} classes; a classifier needs at least 2")
    return replace(found, input_shape=shape, n_classes=classes)


def build(name: str, input_shape: Shape | None = None, n_classes: int | None = None, seed: int = 0) -> nn.Module:
    """The model `info` describes, with weights drawn from `seed`; torch's generators are left as they were.

    Raises QtrainError as `info` does, and where the input is too small for the layers.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        found = info(name, input_shape, n_classes)  # importing and trying out a user's module may draw numbers
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the accelerators, too
        try:
            return found.build(found.input_shape, found.n_classes)
        except (RuntimeError, ValueError) as error:  # from a layer's own checks
            shape, native = ("x".join(map(str, s)) for s in (found.input_shape, shipped(name).input_shape))
            cause = str(error).splitlines()[0]
            raise QtrainError(f"model {name} cannot take input {shape} ({cause}); natively {native}") from error
