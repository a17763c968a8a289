"""What a pruner is, and the one that prunes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from hwmodel.operations import Layer
from qtrain.formats.fixed import FixedTensor

if TYPE_CHECKING:
    from qtrain.layers.tape import Tape


class Pruned(NamedTuple):
    """What is left of an error map."""

    error: Tensor  # [n, K, ...], all channels of it: the layer gathers
    channels: Tensor | None = None  # int64 [K'] ascending, the output channels that take part; None: all
    density: float = 1.0  # share of the taking part elements that are not zero; 1.0 where not looked at


class Pruner(Protocol):
    """Chooses what is left of a layer's error map before its backward passes."""

    thins: ClassVar[bool]
    """Whether it prunes single elements of a conv layer's error map (a pass over all of them that is charged)."""

    @property
    def norms(self) -> tuple[str, ...]:
        """What the channels it keeps are chosen by, of "error" and "weight"; empty where it chooses none."""
        ...

    def prune(self, error: FixedTensor, weight: Tensor, layer: Layer, tape: Tape) -> Pruned:
        """error [n, K, ...] of the layer's output, past the activation's mask; weight [K, ...]; called once a backward
        pass. The tape's clock and rows key whatever is drawn at random."""
        ...

    def keeps(self, layer: Layer) -> float:
        """Share of the layer's output channels kept: what the schedule of the run states."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class NoPruning:
    """The whole error map."""

    kind: ClassVar[str] = "none"
    thins: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ()

    def prune(self, error: FixedTensor, weight: Tensor, layer: Layer, tape: Tape) -> Pruned:
        return Pruned(error.values)

    def keeps(self, layer: Layer) -> float:
        return 1.0

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


PRUNER = NoPruning
