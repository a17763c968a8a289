"""Stochastic depth: residual blocks left out of single training steps.

Huang, Sun, Liu, Sedra, Weinberger 2016, "Deep Networks with Stochastic Depth", arXiv 1603.09382: in every mini-batch
block l of L is computed with probability p_l = 1 - l/L (1 - p_L) (linear decay), else its shortcut alone; for a
prediction all are computed and each branch is multiplied by its p_l.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from hwmodel.network import Network
from qtrain.errors import QtrainError
from qtrain.formats.fixed import FixedTensor
from qtrain.formats.noise import NOISE_BITS, Stream, mix
from qtrain.layers.quantizer import Clock

SURVIVAL_BITS = 8
"""Fraction bits of p_l where a branch is multiplied by it."""


@dataclass(frozen=True)
class Block:
    """A residual block: its addition, which of the inputs is the branch, the branch's layers, its survival p_l."""

    addition: str
    branch: int
    layers: frozenset[str]
    survival: float

    def scaled(self, inputs: list[FixedTensor]) -> list[FixedTensor]:
        """The addition's inputs for a prediction: the branch times p_l, on a grid finer by SURVIVAL_BITS."""
        x = inputs[self.branch]
        factor = round(self.survival * 2**SURVIVAL_BITS) / 2**SURVIVAL_BITS
        exponent = None if x.exponent is None else x.exponent - SURVIVAL_BITS
        return [FixedTensor(v.values * factor, exponent) if i == self.branch else v for i, v in enumerate(inputs)]


class StochasticDepth:
    """The residual blocks of a network, and which of them a step leaves out."""

    def __init__(self, network: Network, last_survival: float) -> None:
        """`last_survival`: p_L. Raises QtrainError where no two paths meet of which one is longer."""
        found = _branches(network)
        if not found:
            raise QtrainError(f"train.survival (--survival): {network.name} has no residual blocks to leave out")
        self.blocks = {
            addition: Block(addition, branch, layers, 1 - i / len(found) * (1 - last_survival))
            for i, (addition, branch, layers) in enumerate(found, start=1)
        }

    def left_out(self, clock: Clock) -> frozenset[str]:
        """Names of the layers not computed in the step of `clock`."""
        return frozenset().union(*(b.layers for b in self.blocks.values() if not self._survives(b, clock)))

    def _survives(self, block: Block, clock: Clock) -> bool:
        stream = Stream(clock.seed, clock.step, zlib.crc32(f"{block.addition}.depth".encode()))
        return mix(stream.key) >> (32 - NOISE_BITS) < block.survival * 2.0**NOISE_BITS


def _branches(network: Network) -> list[tuple[str, int, frozenset[str]]]:
    """(addition, which input is the branch, the layers on it alone) of each residual block, in order: of the two paths
    that meet the one with more multiply-accumulates is the branch, the other its shortcut."""
    layers = {layer.name: layer for layer in network.layers}
    above: dict[str, set[str]] = {}  # each layer with all it is computed from
    found = []
    for layer in network.layers:
        above[layer.name] = {layer.name}.union(*(above[name] for name in layer.inputs))
        if layer.kind != "add":
            continue
        first, second = (above[name] for name in layer.inputs)
        alone = (first - second, second - first)
        macs = [sum(layers[name].macs for name in path) for path in alone]
        branch = 0 if macs[0] >= macs[1] else 1
        if macs[branch]:
            found.append((layer.name, branch, frozenset(alone[branch])))
    return found
