"""The reader of pickled batches: what pickle writes is read, and nothing in a file is ever called."""

import os
import pickle
import pickletools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtrain.data import pickles
from qtrain.data.pickles import read_pickle
from qtrain.errors import QtrainError

BATCH = {"data": np.arange(12, dtype=np.uint8).reshape(3, 4), "labels": [0, 300, -5], "name": "made"}


def read(content: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batch"
        path.write_bytes(content)
        return read_pickle(path)


def python2(array: np.ndarray) -> bytes:
    """{'data': array} as Python 2's protocol 2 writes it: byte strings, numpy.core, a dtype with its own state."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"K" + bytes([value])

    build = b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b")
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + number(0) + b"tb"
    shape = number(array.shape[0]) + number(array.shape[1]) + b"\x86"
    state = b"(" + number(1) + shape + dtype + b"\x89" + text(array.tobytes()) + b"tb"
    return b"\x80\x02}(" + text(b"data") + build + b"\x87R" + state + b"u."


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_pickle_writes_is_read(protocol: int, order: str) -> None:
    found = read(pickle.dumps(BATCH | {"data": BATCH["data"].copy(order)}, protocol=protocol))
    assert np.array_equal(found["data"], BATCH["data"])
    assert found["data"].dtype == np.uint8
    assert (found["labels"], found["name"]) == (BATCH["labels"], "made")


def test_what_python_2_wrote_is_read() -> None:
    content = python2(BATCH["data"])
    assert np.array_equal(pickle.loads(content, encoding="bytes")[b"data"], BATCH["data"])  # the made file is right
    assert np.array_equal(read(content)["data"], BATCH["data"])


class Shell:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_file_never_runs(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    content = pickle.dumps({"data": Shell(mark)}, protocol=protocol)
    with pytest.raises(QtrainError, match="not a pickled CIFAR batch"):
        read(content)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()  # the file is a real attack


NESTED = b"".join(b"h%c\x86\x94h%c" % (i, i + 1) for i in range(40))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a pickled"),
        (pickle.dumps([1, 2], protocol=2), "holds a list, not a dictionary"),
        (pickle.dumps(BATCH, protocol=2)[:-1], "not a pickled"),
        (pickle.dumps(BATCH, protocol=2) + b".", "trailing bytes"),
        (pickle.dumps({"a": 1.5}, protocol=2), "opcode BINFLOAT is not allowed"),
        (pickle.dumps({"a": np.zeros(3, np.float32)}, protocol=2), "a call that is not allowed"),
        (pickle.dumps({"a": np.array([None])}, protocol=2), "a call that is not allowed"),
        (pickle.dumps({1: 2}, protocol=2), "a key that is no string"),
        (pickle.dumps({"a": Path("x")}, protocol=4), "name 'pathlib.* is not allowed"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", ""),  # memo number 2^31 - 1: a dictionary's key here, no table
        (b"\x80\x02}T\xff\xff\xff\x7fabc.", "not a pickled"),  # a string of 2 GiB that is not there
        (b"\x80\x02cnumpy\nndarray\n)R.", "a call that is not allowed"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "state for something that is no array"),
        (python2(np.zeros((3, 4), np.uint8)).replace(b"K\x03K\x04\x86", b"K\x03K\x05\x86"), "do not fill its shape"),
        (b"\x80\x02h\x05.", "not a pickled"),
        # ((((),()),((),()))... doubled 40 times over by the memo: printing it would take 2^40 steps
        (b"\x80\x04)\x94" + NESTED + b"\x93.", "no string"),
        (b"\x80\x02c_codecs\nencode\nK\x01U\x06latin1\x86R.", "a call that is not allowed"),
        (b"\x80\x02]K\x01K\x02s.", "assignment to something that is no dictionary"),
        (b"\x80\x02}K\x01a.", "append to something that is no list"),
    ],
)
def test_anything_else_is_refused(content: bytes, message: str) -> None:
    if not message:
        assert read(content) == {}
        return
    with pytest.raises(QtrainError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_endless_opcodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps(BATCH, protocol=2)
    count = sum(1 for _ in pickletools.genops(content))
    monkeypatch.setattr(pickles, "MAX_OPCODES", count)
    assert read(content)["labels"] == BATCH["labels"]
    monkeypatch.setattr(pickles, "MAX_OPCODES", count - 1)
    with pytest.raises(QtrainError, match=f"more than {count - 1} opcodes"):
        read(content)


@settings(max_examples=400, deadline=None)
@given(
    base=st.sampled_from([*(pickle.dumps(BATCH, protocol=p) for p in (2, 4)), python2(BATCH["data"])]),
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=4),
)
def test_edited_files_are_read_or_refused(base: bytes, edits: list[tuple[int, bytes]]) -> None:
    content = bytearray(base)
    for place, new in edits:
        place %= len(content)
        content[place : place + 1] = new
        if not content:
            break
    try:
        found = read(bytes(content))
    except QtrainError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(found, dict)
