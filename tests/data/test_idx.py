"""IDX files: MNIST's layouts, broken variants, and bytes made up by hypothesis."""

import gzip
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtrain import data
from qtrain.data.idx import read_idx
from qtrain.errors import QtrainError


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def files(n_train: int = 6, n_test: int = 3, side: int = 4) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    made = {}
    for part, n in (("train", n_train), ("t10k", n_test)):
        made[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (n, side, side)))
        made[f"{part}-labels-idx1-ubyte"] = idx(np.arange(n) % 10)
    return made


def write(folder: Path, contents: dict[str, bytes], compress: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "."), ("mnist", "mnist"), ("mnist", "MNIST/raw"),
        ("fashion-mnist", "."), ("fashion-mnist", "fashion-mnist"), ("fashion-mnist", "FashionMNIST/raw"),
    ],
)  # fmt: skip
def test_each_layout_gives_the_bytes_written(tmp_path: Path, name: str, folder: str, compress: bool) -> None:
    write(tmp_path / folder, files(), compress)
    dataset = data.load(name, tmp_path)
    expected = np.random.default_rng(0).integers(0, 256, (6, 4, 4))
    assert np.array_equal(dataset.train_images, expected[:, None])
    assert dataset.train_images.dtype == np.uint8
    assert dataset.test_labels.tolist() == [0, 1, 2]
    assert (dataset.name, dataset.n_classes, len(dataset.class_names)) == (name, 10, 10)


def test_a_dataset_s_own_folder_comes_before_files_beside_it(tmp_path: Path) -> None:
    write(tmp_path, files(n_train=6))
    write(tmp_path / "FashionMNIST/raw", files(n_train=7))
    assert len(data.load("fashion-mnist", tmp_path).train_labels) == 7
    assert len(data.load("mnist", tmp_path).train_labels) == 6


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
HUGE = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 1, 1)
BROKEN = [
    (IMAGES, b"", "magic number"),
    (IMAGES, b"\x00\x00\x08", "magic number"),
    (IMAGES, idx(np.zeros((6, 4, 4)), kind=9), "magic number 0x00000903, expected 0x00000803"),
    (IMAGES, idx(np.zeros(6)), "magic number 0x00000801"),
    (IMAGES, idx(np.zeros((6, 4, 4)))[:10], "truncated in the dimensions"),
    (IMAGES, idx(np.zeros((6, 4, 4)))[:-1], "truncated, dimensions .* need 96 bytes and 95 are there"),
    (IMAGES, idx(np.zeros((6, 4, 4))) + b"\0", "trailing bytes"),
    (IMAGES, idx(np.zeros((0, 4, 4))), "dimensions"),
    (IMAGES, HUGE, "dimensions .* make 4294967295 bytes"),
    (IMAGES, bytes([0, 0, 8, 3]) + b"\xff" * 12, "dimensions"),
    (LABELS, idx(np.zeros(5)), "5 labels for the 6 images"),
    (LABELS, idx(np.full(6, 10)), "label 10, expected 0 to 9"),
]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("file", "content", "message"), BROKEN)
def test_broken_files_are_named(tmp_path: Path, file: str, content: bytes, message: str, compress: bool) -> None:
    write(tmp_path, files() | {file: content}, compress)
    with pytest.raises(QtrainError, match=message) as caught:
        data.load("mnist", tmp_path)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_compression_is_named(tmp_path: Path) -> None:
    whole = gzip.compress(files()[IMAGES], mtime=0)
    for content in (whole[:-10], b"plain", whole[:20] + b"\xff" * 20 + whole[40:], b""):
        write(tmp_path, files(), compress=True)
        (tmp_path / f"{IMAGES}.gz").write_bytes(content)
        with pytest.raises(QtrainError, match=IMAGES):
            data.load("mnist", tmp_path)


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(QtrainError, match=r"expected train-images-idx3-ubyte or .*gz in one of .*MNIST/raw"):
        data.load("mnist", tmp_path)
    with pytest.raises(QtrainError, match=r"there is no folder .*nowhere.*--data-dir"):
        data.load("mnist", tmp_path / "nowhere")
    write(tmp_path, files())
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(QtrainError, match="t10k-labels-idx1-ubyte"):
        data.load("mnist", tmp_path)


def test_images_of_two_sizes_do_not_make_a_dataset(tmp_path: Path) -> None:
    write(tmp_path, files() | {"t10k-images-idx3-ubyte": idx(np.zeros((3, 5, 5)))})
    with pytest.raises(QtrainError, match="must agree"):
        data.load("mnist", tmp_path)


def bomb(tmp_path: Path, header: bytes) -> Path:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(64):
            file.write(bytes(2**20))
    return path


def test_lying_headers_and_bombs_take_no_memory(tmp_path: Path) -> None:
    """64 MiB of zeros behind a header of 4 bytes, and a header of 512 MiB before 4 bytes: both within 32 MiB."""
    small = bytes([0, 0, 8, 1]) + struct.pack(">I", 4)
    large = tmp_path / "large"
    large.write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", 2**29) + bytes(4))
    code = (
        "import resource, sys; from pathlib import Path; from qtrain.data.idx import read_idx\n"
        "from qtrain.errors import QtrainError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_idx(Path(path), 1); sys.exit(3)\n"
        "    except QtrainError: pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    paths = [str(bomb(tmp_path, small)), str(large)]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 * 1024  # KiB


def outcome(read: Callable[[Path], object], content: bytes, suffix: str) -> None:
    """The content is read, or refused in one line that names the file; any other exception fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"made{suffix}"
        path.write_bytes(content)
        try:
            read(path)
        except QtrainError as error:
            assert str(path) in str(error)
            assert "\n" not in str(error)


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from([b"", b"\0\0\x08\x03", b"\0\0\x08\x01", b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]),
    body=st.binary(max_size=64),
    suffix=st.sampled_from(["", ".gz"]),
    compress=st.booleans(),
)
def test_any_bytes_are_read_or_refused(head: bytes, body: bytes, suffix: str, compress: bool) -> None:
    content = gzip.compress(head + body) if compress else head + body
    outcome(lambda path: read_idx(path, 3), content, suffix)


@settings(max_examples=100, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 99), suffix=st.sampled_from(["", ".gz"]))
def test_what_was_written_is_read(shape: tuple[int, int, int], seed: int, suffix: str) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    content = gzip.compress(idx(array)) if suffix else idx(array)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"made{suffix}"
        path.write_bytes(content)
        assert np.array_equal(read_idx(path, 3), array)
