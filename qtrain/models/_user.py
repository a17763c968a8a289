"""A user's own model, given as package.module:factory: the only way user code runs."""

from __future__ import annotations

import importlib
import sys
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qtrain.errors import QtrainError
from qtrain.models.model_info import ModelInfo, Shape


def one_line(error: BaseException) -> str:
    """Type and first line of an exception's message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def find_factory(path: str) -> Any:
    """What "package.module:factory" names; the current folder is put in front of the import path."""
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise QtrainError(f"model {path!r} is not of the form package.module:factory")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the file may be younger than the folder's cached listing
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # user code can raise anything
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            cure = f"it is looked for in {folder} and among the installed packages"
            raise QtrainError(f"model {path!r}: no module named {missing!r}; {cure}") from error
        raise QtrainError(f"model {path!r}: importing {module_name} failed, {one_line(error)}") from error
    if not callable(getattr(module, attribute, None)):
        raise QtrainError(f"model {path!r}: {module_name} has no function {attribute!r}; check the spelling")
    return getattr(module, attribute)


def call_factory(path: str) -> nn.Module:
    """The torch module that the factory returns, called without arguments."""
    factory = find_factory(path)
    try:
        model = factory()
    except Exception as error:
        raise QtrainError(f"model {path!r}: the factory failed, {one_line(error)}; mend it") from error
    if not isinstance(model, nn.Module):
        raise QtrainError(f"model {path!r}: the factory must return a torch nn.Module, not {type(model).__name__}")
    return model


def user_info(path: str, input_shape: Shape | None, n_classes: int | None) -> ModelInfo:
    """Input and classes as given, else from the module's attributes input_shape, n_classes and task.

    The factory is called and the module tried on one blank instance, so that a wrong shape is found at once.
    """
    model = call_factory(path)
    task: Any = getattr(model, "task", "classify")
    shape = input_shape or getattr(model, "input_shape", None)
    classes = 0 if task == "reconstruct" else n_classes or getattr(model, "n_classes", None)
    if task not in ("classify", "reconstruct"):
        raise QtrainError(f"model {path!r}: task {task!r}; it must be 'classify' or 'reconstruct'")
    if not isinstance(shape, (tuple, list)) or len(shape) != 3 or not all(_positive(size) for size in shape):
        raise QtrainError(
            f"model {path!r}: input shape {shape!r}; give --input-shape C,H,W or an attribute input_shape"
        )
    if task == "classify" and not _positive(classes):
        raise QtrainError(f"model {path!r}: {classes!r} classes; give --classes N or an attribute n_classes")
    channels, height, width = shape
    n_out = classes or prod(shape)
    _try_out(path, model, (channels, height, width), n_out)
    return ModelInfo(
        path, (channels, height, width), classes or 0, lambda _shape, _classes: call_factory(path),
        "", "the user's own model", path, task,
    )  # fmt: skip


def _positive(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


def _try_out(path: str, model: nn.Module, shape: Shape, n_out: int) -> None:
    shape_text = "x".join(map(str, shape))
    try:
        with torch.no_grad():
            outputs = model.eval()(torch.zeros(1, *shape))
    except Exception as error:
        raise QtrainError(f"model {path!r} cannot take input {shape_text}, {one_line(error)}") from error
    model.train()  # a factory may hand out one module again and again
    found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if found != (1, n_out):
        raise QtrainError(f"model {path!r} maps one {shape_text} input to {found}, not to (1, {n_out})")
