"""Mutants tried in forks of one pytest session, in which everything is imported and collected; see mutation.py.

A mutant that changes functions alone is put into the live functions (their code is exchanged, caches are emptied), and
of the room's tests those are run that call one of these functions, the quickest first. A mutant of a module's or a
class' own statements needs a fresh import, for which mutation.py has another way.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

OPTIMIZED = 1
"""Flag CO_OPTIMIZED: the code of a function, not of a module or a class body."""
Key = tuple[str, str, int]


def load_libraries() -> None:
    """Everything the tests import and no mutant touches; property tests repeat their examples and shrink none."""
    os.environ["CI"] = "1"
    for name in ("brevitas.nn", "ml_dtypes", "pytest", "scipy.stats"):
        importlib.import_module(name)
    from hypothesis import Phase, settings

    settings.register_profile("mutation", phases=(Phase.explicit, Phase.generate), database=None, deadline=None)
    settings.load_profile("mutation")


def key(code: CodeType) -> Key:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def functions(code: CodeType) -> Iterator[CodeType]:
    """The outermost functions of a module's code, methods included."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & OPTIMIZED:
                yield part
            else:
                yield from functions(part)


def shell(code: CodeType) -> CodeType:
    """A module's code without its functions' bodies and without places in the text."""
    parts = [shell(part) if not part.co_flags & OPTIMIZED else None for part in code.co_consts
             if isinstance(part, CodeType)]  # fmt: skip
    others = [part for part in code.co_consts if not isinstance(part, CodeType)]
    return code.replace(co_consts=(*others, *parts), co_linetable=b"")


def changed_functions(path: Path, text: str) -> list[tuple[Key, CodeType]] | None:
    """(which function, its new code) of a mutant; None if more than functions changes."""
    old, new = (compile(source, str(path), "exec", dont_inherit=True) for source in (path.read_text(), text))
    if shell(old) != shell(new):
        return None
    pairs = zip(functions(old), functions(new), strict=True)
    return [(key(one), other) for one, other in pairs if one != other or one.co_consts != other.co_consts]


def in_fork(work: Callable[[], Any], cpu_s: float = 3600.0) -> tuple[Any, float]:
    """(what `work` returns as JSON, or the signal that ended it as text; seconds of processor time) of a fork."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 1)
            os.dup2(null, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s) + 1, int(cpu_s) + 6))
            answer = json.dumps(work()).encode()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    _, status, used = os.wait4(child, 0)
    found = json.loads(answer) if answer else f"status {status}"
    return found, used.ru_utime + used.ru_stime


def run_items(session: Any, items: list[Any]) -> str:
    """Run tests until one fails; its name, or ""."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            return str(item.nodeid)
    return ""


class Attack:
    """A pytest plugin whose loop over the tests is a loop over mutants; `on_done` is told of each."""

    def __init__(self, mutants: list[dict[str, Any]], times: float, on_done: Callable[..., None]) -> None:
        self.mutants, self.times, self.on_done = mutants, times, on_done
        self.caches: list[Any] = []

    def pytest_runtestloop(self, session: Any) -> bool:
        live: dict[Key, list[FunctionType]] = {}
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType):
                live.setdefault(key(thing.__code__), []).append(thing)
        wanted = {name for mutant in self.mutants for name, _ in mutant["functions"]}
        self.caches = [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper)
                       and str(thing.__module__).startswith(("qtrain", "hwmodel"))]  # fmt: skip
        (reached, broken), cpu_s = in_fork(lambda: self._look(session, wanted))
        if broken:
            raise SystemExit(f"{broken} fails without a mutant")
        gc.freeze()
        for mutant in self.mutants:
            names = {"|".join(map(str, name)) for name, _ in mutant["functions"]}
            near = [(reached[item.nodeid]["s"], item) for item in session.items
                    if names & set(reached[item.nodeid]["calls"])]  # fmt: skip
            items = [item for _, item in sorted(near, key=lambda pair: pair[0])]
            found, used_s = in_fork(lambda m=mutant, i=items: self._try(session, live, m, i), self.times * cpu_s)
            self.on_done(mutant, found, used_s)
        return True

    def _look(self, session: Any, wanted: set[Key]) -> tuple[dict[str, Any], str]:
        """Each test's seconds and which of the wanted functions it calls."""
        seen: dict[str, Any] = {}
        for item in session.items:
            self._empty_caches()  # or the first test alone would be seen to call what is cached
            codes: set[CodeType] = set()
            begun = time.process_time()
            sys.setprofile(lambda frame, event, _, add=codes.add: add(frame.f_code) if event == "call" else None)
            failed = run_items(session, [item])
            sys.setprofile(None)
            if failed:
                return seen, failed
            calls = ["|".join(map(str, key(code))) for code in codes if key(code) in wanted]
            seen[item.nodeid] = {"s": time.process_time() - begun, "calls": calls}
        return seen, ""

    def _try(self, session: Any, live: dict[Key, list[FunctionType]], mutant: dict[str, Any], items: list[Any]) -> str:
        for name, code in mutant["functions"]:
            for function in live.get(name, []):
                function.__code__ = code
        self._empty_caches()
        return run_items(session, items)

    def _empty_caches(self) -> None:
        for cache in self.caches:
            cache.cache_clear()
