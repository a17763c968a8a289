"""Reading a pickled CIFAR batch without an unpickler: no code from the file ever runs.

Python's own parser splits the file into opcodes; the few that build containers, strings, integers and uint8
arrays are carried out here as data, and any other is refused.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from qtrain.data.files import read_file
from qtrain.errors import QtrainError

MAX_OPCODES = 1_000_000
"""CIFAR-100's training batch, the longest, has some 200,000."""
MAX_DIMS = 4
RECONSTRUCT, NDARRAY, DTYPE, ENCODE = "reconstruct", "ndarray", "dtype", "encode"
GLOBALS = {
    "numpy.core.multiarray _reconstruct": RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": RECONSTRUCT,
    "numpy ndarray": NDARRAY,
    "numpy dtype": DTYPE,
    "_codecs encode": ENCODE,
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
INTEGERS = ("BININT", "BININT1", "BININT2", "LONG1")
STRINGS = ("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES")


@dataclass(frozen=True)
class _Global:
    """A name the file refers to: a word, nothing that could be called."""

    meaning: str


class _Uint8:
    """The one data type read."""


@dataclass
class _Array:
    """An array, empty until its state is read."""

    values: np.ndarray | None = None


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary pickled in `path`: strings, integers, lists, tuples and uint8 arrays.

    Raises QtrainError naming the file and the opcode or value for everything else.
    """
    data = read_file(path)
    try:
        result = _Machine().run(data)
    except (ValueError, IndexError, KeyError, TypeError) as error:  # a broken file can misuse any opcode
        raise QtrainError(f"{path}: not a pickled CIFAR batch ({str(error)[:200]})") from error
    if not isinstance(result, dict):
        raise QtrainError(f"{path}: holds a {type(result).__name__}, not a dictionary")
    return {key: value.values if isinstance(value, _Array) else value for key, value in result.items()}


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPCODES:
                raise ValueError(f"more than {MAX_OPCODES} opcodes")
            if opcode.name == "STOP":
                if position != len(data) - 1:
                    raise ValueError("trailing bytes")
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise ValueError("no STOP")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[name])
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(CONSTANTS[name])
            case "GLOBAL":
                stack.append(_named(argument))
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                if not isinstance(module, str) or not isinstance(attribute, str):
                    raise ValueError("a name that is no string")
                stack.append(_named(f"{module} {attribute}"))
            case "TUPLE":
                stack.append(tuple(self.above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND":
                self.extend([stack.pop()])
            case "APPENDS":
                self.extend(self.above_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.assign([key, value])
            case "SETITEMS":
                self.assign(self.above_mark())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_reduce(function, arguments))
            case "BUILD":
                _set_state(stack[-2], stack.pop())
            case _ if name in INTEGERS or name in STRINGS:
                stack.append(argument)
            case _:
                raise ValueError(f"opcode {name} is not allowed")

    def above_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("append to something that is no list")
        self.stack[-1].extend(items)

    def assign(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("assignment to something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, bytes)):
                raise ValueError("a key that is no string")
            target[key.decode("latin-1") if isinstance(key, bytes) else key] = value


def _named(name: str) -> _Global:
    if name not in GLOBALS:
        raise ValueError(f"name {name[:80]!r} is not allowed")
    return _Global(GLOBALS[name])


def _reduce(function: Any, arguments: Any) -> Any:
    """What the call of one of the GLOBALS would have given."""
    if function == _Global(RECONSTRUCT) and arguments[0] == _Global(NDARRAY):
        return _Array()
    if function == _Global(DTYPE) and arguments[0] in ("u1", b"u1"):
        return _Uint8()
    if function == _Global(ENCODE) and isinstance(arguments[0], str) and arguments[1] == "latin1":
        return arguments[0].encode("latin-1")
    raise ValueError("a call that is not allowed")


def _set_state(target: Any, state: Any) -> None:
    """Give an array its values: state is (version, shape, dtype, Fortran order, bytes)."""
    if isinstance(target, _Uint8):
        return  # byte order means nothing for a single byte
    if not isinstance(target, _Array):
        raise ValueError("state for something that is no array")
    _, shape, dtype, fortran_order, raw = state
    raw = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(dtype, _Uint8) or not isinstance(raw, bytes) or not isinstance(shape, tuple):
        raise ValueError("an array that is not of type uint8")
    sizes_fit = len(shape) <= MAX_DIMS and all(type(size) is int and 0 < size <= len(raw) for size in shape)
    if not sizes_fit or prod(shape) != len(raw):
        raise ValueError(f"an array of {len(raw)} bytes that do not fill its shape")
    target.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran_order else "C")
