"""Class folders of images: layouts, the split rule, broken and hostile files."""

import importlib.util
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qtrain import data
from qtrain.data import imagefolder
from qtrain.errors import QtrainError


def picture(path: Path, value: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = value if mode == "L" else (value, 0, 255 - value)
    Image.new(mode, size, colour).save(path)


def class_folders(root: Path, counts: dict[str, int], **options) -> None:
    for place, (name, count) in enumerate(counts.items()):
        for i in range(count):
            picture(root / name / f"{i:02}.png", 10 * place + i, **options)


def test_separate_train_and_test_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"cat": 3, "dog": 2})
    class_folders(tmp_path / "test", {"cat": 1, "dog": 1})
    dataset = data.load("imagefolder", tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.test_labels.tolist() == [0, 1]
    assert dataset.input_shape == (3, 4, 6)  # Pillow's size is width x height
    assert dataset.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11]
    assert dataset.train_images[:, 2, 3, 5].tolist() == [255, 254, 253, 245, 244]


@pytest.mark.parametrize("base", [".", "imagefolder"])
def test_every_fifth_of_each_class_is_the_test_set(tmp_path: Path, base: str) -> None:
    class_folders(tmp_path / base, {"a": 10, "b": 6}, mode="L")
    dataset = data.load("imagefolder", tmp_path)
    assert dataset.input_shape == (1, 4, 6)
    assert dataset.test_images[:, 0, 0, 0].tolist() == [4, 9, 14]  # a: the 5th and 10th; b: the 5th
    assert dataset.test_labels.tolist() == [0, 0, 1]
    assert len(dataset.train_labels) == 13


def test_all_take_the_first_one_s_size_at_most_128(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 1}, size=(512, 256))
    class_folders(tmp_path / "train", {"b": 2}, size=(30, 30))
    picture(tmp_path / "train/b/x.jpeg", 200, size=(50, 70))
    class_folders(tmp_path / "test", {"b": 1}, size=(8, 9), mode="L")
    assert data.load("imagefolder", tmp_path).input_shape == (3, 64, 128)  # 512x256 shrunk by 4


def refused(folder: Path, message: str) -> str:
    with pytest.raises(QtrainError, match=message) as caught:
        data.load("imagefolder", folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims width x height, with one byte of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be decoded"),
        (b"GIF89a\x01\0\x01\0\0\0\0;", "cannot be decoded"),
        (png(6, 4)[:40], "cannot be decoded"),
        (png(6, 4), "cannot be decoded"),
        (png(60_000, 60_000), "cannot be decoded|above 33554432 pixels"),
        (png(6000, 6000), "size 6000x6000 is above 33554432 pixels"),
    ],
)
def test_broken_images_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    class_folders(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "b/02.png").write_bytes(content)
    assert str(tmp_path / "b/02.png") in refused(tmp_path, message)


def test_wrong_layouts_are_explained(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "there is no folder .*DIR/train/CLASS")
    refused(tmp_path, "fewer than two class folders; expected DIR/train")
    class_folders(tmp_path / "one", {"a": 5})
    refused(tmp_path / "one", "fewer than two class folders")
    class_folders(tmp_path / "few", {"a": 4, "b": 4})
    refused(tmp_path / "few", "no test images; give five or more")
    class_folders(tmp_path / "few", {"c": 1})
    (tmp_path / "few/c/00.png").rename(tmp_path / "few/c/00.txt")
    refused(tmp_path / "few", "c: no PNG or JPEG files")
    class_folders(tmp_path / "untested/train", {"a": 2, "b": 2})
    (tmp_path / "untested/test").mkdir()
    refused(tmp_path / "untested", "no test images")
    class_folders(tmp_path / "odd/train", {"a": 2, "b": 2})
    class_folders(tmp_path / "odd/test", {"a": 2, "zebra": 2})
    refused(tmp_path / "odd", "class 'zebra' is not among those of")


def test_links_that_lead_out_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "data", {"a": 5, "b": 5})
    picture(tmp_path / "secret.png", 1)
    link = tmp_path / "data/b/09.png"
    link.symlink_to(tmp_path / "secret.png")
    refused(tmp_path / "data", "09.png: not a regular file inside")
    link.unlink()
    link.symlink_to(tmp_path / "data/a/00.png")  # a link inside is followed
    assert len(data.load("imagefolder", tmp_path / "data").train_labels) == 9
    class_folders(tmp_path / "elsewhere", {"c": 5})
    (tmp_path / "data/c").symlink_to(tmp_path / "elsewhere/c")
    refused(tmp_path / "data", "not a regular file inside")


def test_hidden_entries_are_passed_over(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 5, "b": 5, ".cache": 5})
    (tmp_path / "a/._00.png").write_bytes(b"resource fork")
    assert data.load("imagefolder", tmp_path).class_names == ("a", "b")


def test_a_set_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, {"a": 5, "b": 5})
    needed = 10 * 6 * 4 * 3
    monkeypatch.setattr(imagefolder, "MAX_BYTES", needed)
    assert len(data.load("imagefolder", tmp_path).train_labels) == 8
    monkeypatch.setattr(imagefolder, "MAX_BYTES", needed - 1)
    refused(tmp_path, "10 images of 6x4 pixels are above")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, {"a": 5, "b": 5})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "PIL" else find(name))
    refused(tmp_path, r'imagefolder needs Pillow: pip install "qtrain\[images\]"')


@pytest.fixture(scope="module")
def folder_with_one_open_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    class_folders(root, {"a": 5, "b": 4}, size=(5, 5))
    return root


@settings(max_examples=150, deadline=None)
@given(
    image=st.sampled_from(["PNG", "JPEG"]),
    edits=st.lists(st.tuples(st.integers(0, 1000), st.binary(max_size=2)), max_size=3),
)
def test_edited_images_are_read_or_refused(folder_with_one_open_place: Path, image: str, edits: list) -> None:
    path = folder_with_one_open_place / "b/zz.png"
    Image.new("RGB", (5, 5), (1, 2, 3)).save(path, format=image)
    content = bytearray(path.read_bytes())
    for place, new in edits:
        place %= len(content)
        content[place : place + 1] = new
    path.write_bytes(bytes(content))
    try:
        assert data.load("imagefolder", folder_with_one_open_place).input_shape == (3, 5, 5)
    except QtrainError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
