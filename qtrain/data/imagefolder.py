"""Class folders of PNG and JPEG files, read through Pillow (the extra "images")."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qtrain.data.dataset import DataInfo, Dataset, every_fifth
from qtrain.errors import QtrainError

SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 2**25
"""One decoded image: 100 MB in RGB. Checked against the header before decoding."""
MAX_SIDE = 128
"""Longest side kept; the networks here read at most 96 pixels."""
MAX_BYTES = 2**30
LAYOUT = "DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, or DIR/CLASS/*.png (also .jpg, .jpeg)"


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _listing(folder: Path, root: Path) -> list[tuple[str, Path]]:
    """(class, file) of every image, both in alphabetical order; links out of `root` are refused."""
    found: list[tuple[str, Path]] = []
    for class_folder in _folders(folder):
        files = sorted(
            file for file in class_folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        )
        if not files:
            raise QtrainError(f"{class_folder}: no PNG or JPEG files; expected {LAYOUT}")
        for file in files:
            if not file.is_file() or not file.resolve().is_relative_to(root):
                raise QtrainError(f"{file}: not a regular file inside {root}; copy it there instead of linking")
        found += [(class_folder.name, file) for file in files]
    return found


def _decode(path: Path, size: tuple[int, int] | None, mode: str | None) -> NDArray[np.uint8]:
    """Image [C, H, W] at `size` (width, height) in `mode`; None: as the first image of a dataset decides."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise QtrainError(f"{path}: size {image.width}x{image.height} is above {MAX_PIXELS} pixels")
            if size is None:
                shrink = min(1.0, MAX_SIDE / max(image.size))
                size = max(1, round(image.width * shrink)), max(1, round(image.height * shrink))
            pixels = image.convert(mode or ("L" if image.mode in ("1", "L") else "RGB"))
            if pixels.size != size:
                pixels = pixels.resize(size, Image.Resampling.BILINEAR)
            values = np.asarray(pixels, dtype=np.uint8)
    except QtrainError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError and their own
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise QtrainError(f"{path}: cannot be decoded as PNG or JPEG ({cause})") from error
    return values.reshape(*values.shape[:2], -1).transpose(2, 0, 1)


def _decode_all(paths: list[Path], first: NDArray[np.uint8]) -> NDArray[np.uint8]:
    channels, height, width = first.shape
    if len(paths) * first.size > MAX_BYTES:
        raise QtrainError(f"{len(paths)} images of {width}x{height} pixels are above {MAX_BYTES} bytes; use fewer")
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)
    for i, path in enumerate(paths):
        images[i] = _decode(path, (width, height), "L" if channels == 1 else "RGB")
    return images


def _read(root: Path) -> Dataset:
    """All images take the size of the first training image (its longer side at most MAX_SIDE) and its colour.

    Without train and test folders the 5th, 10th, 15th... file of each class, by name, is the test set.
    """
    folder = root / "imagefolder" if (root / "imagefolder").is_dir() else root
    if importlib.util.find_spec("PIL") is None:
        raise QtrainError('imagefolder needs Pillow: pip install "qtrain[images]"')
    try:
        if not folder.is_dir():
            raise QtrainError(
                f"no imagefolder data (there is no folder {folder}): expected {LAYOUT}; "
                "name the folder with --data-dir or QTRAIN_DATA"
            )
        inside = folder.resolve()
        separate = (folder / "train").is_dir() and (folder / "test").is_dir()
        train = _listing(folder / "train" if separate else folder, inside)
        test = _listing(folder / "test", inside) if separate else []
    except OSError as error:
        raise QtrainError(f"{folder}: cannot be read ({error.strerror or error})") from error
    class_names = tuple(sorted({name for name, _ in train}))
    if len(class_names) < 2:
        raise QtrainError(f"{folder}: fewer than two class folders; expected {LAYOUT}")
    if strangers := {name for name, _ in test} - set(class_names):
        raise QtrainError(f"{folder / 'test'}: class {min(strangers)!r} is not among those of {folder / 'train'}")
    labels = np.array([class_names.index(name) for name, _ in train + test], dtype=np.int64)
    is_test = np.arange(len(labels)) >= len(train) if separate else every_fifth(labels)
    if not is_test.any():
        cure = "put class folders into test" if separate else "give five or more a class, or train and test folders"
        raise QtrainError(f"{folder}: no test images; {cure}")
    paths = [path for _, path in train + test]
    images = _decode_all(paths, _decode(paths[0], None, None))
    return Dataset(
        "imagefolder", images[~is_test], labels[~is_test], images[is_test], labels[is_test],
        len(class_names), class_names,
    )  # fmt: skip


DATASETS = (DataInfo("imagefolder", _read, f"class folders of PNG and JPEG files: {LAYOUT}", "the user's own"),)
