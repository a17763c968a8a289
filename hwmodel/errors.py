"""The one error that hwmodel raises on bad input: a single line naming the cause and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HwmodelError(ValueError):
    """Bad input to the hardware model; the message is one line."""


def unknown(what: str, name: object, valid: Iterable[str]) -> str:
    """The message for a name that is not one of `valid`, suggesting the nearest."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}{hint} (valid: {', '.join(names)})"
