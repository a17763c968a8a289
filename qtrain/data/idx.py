"""MNIST and Fashion-MNIST in their IDX format, plain or gzip-compressed.

IDX (LeCun, Cortes, Burges: The MNIST database): two zero bytes, a type code, the number of dimensions, each
dimension as a big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qtrain.data.dataset import DataInfo, Dataset
from qtrain.data.files import MAX_FILE_BYTES, find
from qtrain.errors import QtrainError

UNSIGNED_BYTE = 8
CHUNK_BYTES = 2**20
N_CLASSES = 10
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def read_idx(path: Path, n_dims: int) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file with `n_dims` dimensions; a name ending in .gz is decompressed.

    Memory follows the bytes that are there, never the header's word, and stays below MAX_FILE_BYTES.
    Raises QtrainError naming the file and the field for anything else than a well-formed file.
    """
    try:
        if not path.is_file():
            raise QtrainError(f"{path}: no such file; the dataset is incomplete")
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            shape = _read_header(path, file, n_dims)
            n_bytes = prod(shape)
            data = bytearray()
            while chunk := file.read(min(CHUNK_BYTES, n_bytes + 1 - len(data))):
                data += chunk
    except (OSError, EOFError, zlib.error) as error:
        raise QtrainError(f"{path}: cannot be read ({error})") from error
    if len(data) < n_bytes:
        raise QtrainError(f"{path}: truncated, dimensions {shape} need {n_bytes} bytes and {len(data)} are there")
    if len(data) > n_bytes:
        raise QtrainError(f"{path}: trailing bytes after the {n_bytes} of dimensions {shape}")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def _read_header(path: Path, file: io.BufferedIOBase, n_dims: int) -> tuple[int, ...]:
    magic = file.read(4)
    expected = bytes([0, 0, UNSIGNED_BYTE, n_dims])
    if magic != expected:
        raise QtrainError(f"{path}: magic number 0x{magic.hex()}, expected 0x{expected.hex()}: not this IDX file")
    header = file.read(4 * n_dims)
    if len(header) < 4 * n_dims:
        raise QtrainError(f"{path}: truncated in the dimensions of the header")
    shape = struct.unpack(f">{n_dims}I", header)
    if not 0 < prod(shape) <= MAX_FILE_BYTES:
        raise QtrainError(f"{path}: dimensions {shape} make {prod(shape)} bytes, not 1 to {MAX_FILE_BYTES}")
    return shape


def _read(root: Path, name: str, raw: str, class_names: tuple[str, ...]) -> Dataset:
    marker = "train-images-idx3-ubyte"
    folder = find(root, name, (name, raw, "."), (marker, f"{marker}.gz")).parent

    def part(prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        image_file, label_file = (
            find(folder, name, (".",), (f"{prefix}-{kind}-ubyte", f"{prefix}-{kind}-ubyte.gz"))
            for kind in ("images-idx3", "labels-idx1")
        )
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
        if len(images) != len(labels):
            raise QtrainError(f"{label_file}: {len(labels)} labels for the {len(images)} images of {image_file}")
        if labels.max() >= N_CLASSES:
            raise QtrainError(f"{label_file}: label {labels.max()}, expected 0 to {N_CLASSES - 1}")
        return images[:, None], labels.astype(np.int64)

    return Dataset(name, *part("train"), *part("t10k"), N_CLASSES, class_names)


DATASETS = (
    DataInfo(
        "mnist", partial(_read, name="mnist", raw="MNIST/raw", class_names=tuple("0123456789")),
        "handwritten digits, 28x28 gray, 60,000 + 10,000", "LeCun et al., Proc. IEEE 86(11), 1998",
    ),
    DataInfo(
        "fashion-mnist", partial(_read, name="fashion-mnist", raw="FashionMNIST/raw", class_names=FASHION),
        "articles of clothing, 28x28 gray, 60,000 + 10,000", "Xiao et al., arXiv 1708.07747",
    ),
)  # fmt: skip
