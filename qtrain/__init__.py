"""Train small CNNs as a device would: in fixed point, filtered and pruned, with every operation priced.

Importing this package loads nothing else: each public name is imported when it is first used, so that
`qtrain --help` and the pricing tools need neither torch nor Brevitas.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Experiment": "qtrain.experiment",
    "QtrainError": "qtrain.errors",
    "Run": "qtrain.store",
    "quantize": "qtrain.layers",
}
__all__ = ["Experiment", "QtrainError", "Run", "__version__", "quantize"]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("qtrain")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'qtrain' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
