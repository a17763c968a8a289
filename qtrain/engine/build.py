"""The compiled kernels: built by the system's C++ compiler when first wanted, cached for the user, never at import.

No header but the language's own is used, so a build takes two seconds. The file's name is a hash of everything that
made it (sources, compiler, flags, processor), so that a cache shared by machines holds one library for each.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

SOURCES = Path(__file__).parent / "kernels"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fwrapv",
         "-fPIC", "-shared")  # fmt: skip
"""No contraction into fused multiply-adds and no reassociation: the bits must be the twin's."""
BUILD_TIMEOUT_S = 120


class BuildError(Exception):
    """Why there is no compiled kernel, in one line."""


def cache_folder() -> Path:
    """Where built kernels are kept: $XDG_CACHE_HOME/qtrain, ~/Library/Caches/qtrain or ~/.cache/qtrain."""
    if root := os.environ.get("XDG_CACHE_HOME"):
        return Path(root) / "qtrain"
    home = Path.home()
    return (home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache") / "qtrain"


@lru_cache(maxsize=1)
def compiler() -> str | None:
    """The path of $CXX, else of c++; None where there is none."""
    return shutil.which(os.environ.get("CXX") or "c++")


@lru_cache(maxsize=1)
def library_path() -> Path | None:
    """Where this machine's library is, or will be once built; None without a compiler."""
    command = compiler()
    if command is None:
        return None
    version = subprocess.run([command, "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(b"\0".join([version, *(f.encode() for f in FLAGS), _processor().encode(), *_threads()]))
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return cache_folder() / f"kernels-{digest.hexdigest()[:20]}.so"


def build() -> Path:
    """The library's path, after building it if it isn't there. Raises BuildError with the reason."""
    target = library_path()
    if target is None:
        raise BuildError("no C++ compiler (install g++ or clang++, or set CXX)")
    if target.exists():
        return target
    sources = [str(s) for s in sorted(SOURCES.glob("*.cpp"))]
    command = [str(compiler()), *FLAGS, *sources]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            threaded = [*command, "-fopenmp", "-Wl,--as-needed", *(t.decode() for t in _threads()), "-o", str(made)]
            if not (_threads() and _runs(threaded)):
                _run([*command, "-o", str(made)])  # single-threaded
            os.replace(made, target)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        lines = [line for line in str(detail).splitlines() if "error" in line] or str(detail).splitlines() or [""]
        raise BuildError(f"the kernels can't be built: {lines[0][:200]}") from error
    return target


def _runs(command: list[str]) -> bool:
    try:
        _run(command)
    except subprocess.CalledProcessError:
        return False
    return True


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=BUILD_TIMEOUT_S)


def _threads() -> list[bytes]:
    """The OpenMP runtime PyTorch brought and has already loaded: a second one in the process would fight it for cores.

    Linked by path ahead of the compiler's own (which --as-needed then drops); none: the kernels use one thread."""
    import torch

    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return [str(found[0]).encode()] if found else []


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "\n".join(sorted({li for li in lines if li.startswith(("model name", "flags", "Features", "CPU part"))}))
