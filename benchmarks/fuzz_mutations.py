"""Ways to spoil a valid input: bytes, texts, plain values (JSON, TOML), command lines."""

from __future__ import annotations

import copy
import json
import math
import sys
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65_536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 10**30, -(10**30),
           16**6000, 0.0, 0.5, 1.5, 1e-300, 5e-324, 1e18, 1e308, -1e308, math.nan, math.inf, -math.inf)  # fmt: skip
TEXTS = ("", " ", "0", "-1", "nan", "inf", "1e999", "9" * 5000, "true", "all", "*", "[", "..", "../../etc/passwd",
         "/dev/zero", "/proc/self/mem", "\x00", "\n", "\x1b[31m", "é" * 300, "a" * 100_000, "{0}", "%s", "conv1",
         "none", "stm32l4r5", "mcu", "conv", "forward", "main")  # fmt: skip
WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def deep(levels: int) -> list:
    """Lists in lists."""
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def weird(rng: Random) -> Any:
    """A value nobody expects."""
    kind = rng.randrange(7)
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 5:
        return rng.choice(TEXTS)
    return copy.deepcopy(rng.choice((True, False, [], {}, [[]], [1, 2], [None], {"value": 1}, {"": {}}, deep(50))))


def spoiled_value(rng: Random, value: Any, weird_keys: bool = True) -> Any:
    """A copy of a tree of lists and mappings with one to three places changed."""
    tree = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        holder, place = _place(rng, tree)
        if holder is None:
            return weird(rng)
        action = rng.randrange(6)
        if action <= 2:
            holder[place] = weird(rng)
        elif action == 3:
            del holder[place]
        elif action == 4 and isinstance(holder[place], int | float) and abs(holder[place]) < 2**60:
            holder[place] = rng.choice((-holder[place], holder[place] * 1000, holder[place] + 1, str(holder[place])))
        elif isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(rng.choice(holder)))
        elif weird_keys:
            name = rng.choice(("x", "value", str(place) + "s", *TEXTS[:8]))
            holder[name] = holder.pop(place) if rng.random() < 0.5 else weird(rng)
    return tree


def dumped(tree: Any) -> str:
    """JSON of a tree, whole numbers of any length included."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(tree)
    finally:
        sys.set_int_max_str_digits(limit)


def _place(rng: Random, tree: Any) -> tuple[Any, Any]:
    """(container, key or index) of a random place, deep places as likely as shallow ones."""
    holder, place = None, None
    node = tree
    while isinstance(node, dict | list) and node:
        here = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        holder, place = node, here
        node = node[here]
        if rng.random() < 0.15:
            break
    return holder, place


def spoiled_bytes(rng: Random, content: bytes, header: int = 64) -> bytes:
    """`content` with bits flipped, bytes replaced, cut, doubled or inserted; half of it within the first `header`."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        reach = len(data) if rng.random() < 0.5 else min(header, len(data))
        at = rng.randrange(reach) if reach else 0
        action = rng.randrange(7)
        if action == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif action == 1 and data:
            data[at] = rng.randrange(256)
        elif action == 2:
            word = rng.choice(WORDS).to_bytes(4, rng.choice(("big", "little")))
            data[at : at + 4] = word
        elif action == 3:
            del data[at:]
        elif action == 4:
            del data[at : at + rng.randrange(1, 64)]
        elif action == 5:
            data[at:at] = rng.randbytes(rng.randrange(1, 64))
        else:
            data[at:at] = data[at : at + rng.randrange(1, 256)]
    return bytes(data)


def spoiled_text(rng: Random, text: str, tables: dict[str, Any]) -> str:
    """A TOML text changed as a tree of values, or as characters."""
    if rng.random() < 0.7:
        return toml(spoiled_value(rng, tables))
    return spoiled_bytes(rng, text.encode(), len(text)).decode("utf-8", "replace")


def toml(tables: Any) -> str:
    """TOML of any tree: every table inline, so that nothing weird is left out."""
    if not isinstance(tables, dict):
        return f"x = {_inline(tables)}\n"
    return "".join(f"{json.dumps(str(key))} = {_inline(value)}\n" for key, value in tables.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, float) or value is None:
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 10_000:
        return hex(value)
    return json.dumps(value)
