"""The one error that hwmodel raises on bad input: a single line naming the cause and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_SHOWN = 60
"""Characters of a value that a message shows."""
MAX_LISTED = 1500
"""Characters of valid names that one line still lists whole: some twenty lines of a terminal."""
N_NEAREST = 10
"""Names listed instead of more."""


class HwmodelError(ValueError):
    """Bad input to the hardware model; the message is one line."""


def unknown(what: str, name: object, valid: Iterable[str]) -> str:
    """The message for a name that is not one of `valid`, suggesting the nearest; of very many only some are listed."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) and len(name) <= MAX_SHOWN else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names)
    if len(listed) > MAX_LISTED:
        nearest = difflib.get_close_matches(shown(name), names, n=N_NEAREST, cutoff=0.0)
        listed = f"{len(names)} names, the nearest {', '.join(nearest)}"
    return f"unknown {what} {shown(name)}{hint} (valid: {listed})"


def shown(value: object) -> str:
    """`value` as it may stand in a one-line message: printable and short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits, lists nested thousands deep
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
