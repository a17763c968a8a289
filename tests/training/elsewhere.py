"""A device that is not the CPU, on the CPU: tensors that say they lie on "elsewhere", and refuse to meet the CPU's.

What a GPU would refuse is refused here: an operation on tensors of both places (but for one-element ones, indices and
copies), and `.numpy()` of a tensor that was not brought back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("elsewhere")
PLACE = torch.device("elsewhere", 0)
CPU = torch.device("cpu")
MAY_MIX = {"copy_", "_to_copy", "index", "index_put", "index_put_", "_index_put_impl_"}


class Elsewhere(torch.Tensor):
    """Wraps the CPU tensor `raw`."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=PLACE
        )
        made.raw = raw
        return made

    def tolist(self) -> Any:
        return self.raw.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs)


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """`func` on the CPU tensors behind; its result lies where its tensors do, or where it was asked to."""
    kwargs = dict(kwargs or {})
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Elsewhere)]
    here = [t for t in tensors if not isinstance(t, Elsewhere) and t.dim()]
    name = func._schema.name.split("::")[1]
    if there and here and name not in MAY_MIX:
        raise RuntimeError(f"{name}: tensors of both places")
    goes = there != []
    if (device := kwargs.get("device")) is not None:
        goes = torch.device(device).type == PLACE.type
        kwargs["device"] = CPU
    if name == "copy_":
        goes = isinstance(args[0], Elsewhere)
    unwrap = lambda t: t.raw if isinstance(t, Elsewhere) else t  # noqa: E731
    out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    if name.endswith("_") and not name.endswith("__"):  # in place: the same object comes back
        return args[0]
    return tree_map(lambda t: Elsewhere(t) if isinstance(t, torch.Tensor) else t, out) if goes else out


class OnElsewhere(TorchDispatchMode):
    """New tensors, too, can be made there."""

    def __enter__(self) -> Any:
        self.tensor = torch.tensor  # makes its tensor out of dispatch's sight
        torch.tensor = lambda *args, device=None, **kwargs: self.tensor(*args, **kwargs).to(device or CPU)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        torch.tensor = self.tensor
        super().__exit__(*raised)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs)
