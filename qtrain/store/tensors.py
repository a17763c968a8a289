"""Named NumPy arrays in safetensors files: data only, never code."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from qtrain.errors import QtrainError
from qtrain.files import read_bounded, write_atomic

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 8 << 30  # four times the master weights and momentum of the largest ImageNet CNN in float64


def dump(tensors: Mapping[str, "np.ndarray"]) -> bytes:
    """The safetensors file of the arrays; equal arrays give equal bytes in whatever order they come."""
    import numpy as np
    from safetensors.numpy import save

    # C order first: safetensors writes the memory of a transposed array as it lies, silently scrambled
    return save({name: np.asarray(tensors[name], order="C") for name in sorted(tensors)})


def parse(content: bytes, source: str) -> "dict[str, np.ndarray]":
    """The arrays of a safetensors file; raises QtrainError opening with `source` if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise QtrainError(f"{source}: not a readable safetensors file ({reason})") from None


def read_tensors(path: str | Path) -> "dict[str, np.ndarray]":
    """Read a .safetensors file; raises QtrainError in one line naming it."""
    return parse(read_bounded(Path(path), MAX_BYTES), str(path))


def write_tensors(path: str | Path, tensors: Mapping[str, "np.ndarray"]) -> None:
    """Write a .safetensors file whole or not at all; raises QtrainError in one line naming it."""
    write_atomic(Path(path), dump(tensors))
