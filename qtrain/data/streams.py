"""The order in which a run sees its instances: a function of the step number, all that a resumed run needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qtrain.errors import QtrainError

AUGMENTATION, HOLD_OUT = 1, 2
"""Tell other random numbers from the permutations' (not 0: SeedSequence ignores trailing zeros)."""


def generator(*entropy: int) -> np.random.Generator:
    """PCG64 seeded with non-negative integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = generator(seed, epoch).permutation(n)
    order.flags.writeable = False
    return order


@dataclass(frozen=True)
class Batches:
    """Mini-batches of `n` instances, for `n_epochs` epochs or `n_steps` steps: give exactly one of the two.

    Every epoch is a permutation of its own drawn from (seed, epoch); its last mini-batch may be shorter than
    `batch_size` and is used: every instance is seen exactly once an epoch. Raises QtrainError for numbers < 1.
    """

    n: int
    batch_size: int
    n_epochs: int = 0
    n_steps: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch_size < 1 or self.seed < 0:
            raise QtrainError(
                f"{self.n} instances in batches of {self.batch_size} with seed {self.seed}: "
                "the first two must be at least 1, the seed at least 0"
            )
        if min(self.n_epochs, self.n_steps) < 0 or (self.n_epochs > 0) == (self.n_steps > 0):
            raise QtrainError(f"{self.n_epochs} epochs and {self.n_steps} steps: give one of the two, at least 1")
        if not self.n_steps:
            object.__setattr__(self, "n_steps", self.n_epochs * self.steps_per_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Mini-batches of one epoch, the short one included."""
        return -(-self.n // self.batch_size)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Indices [batch_size or fewer] of the instances of `step` (0 .. n_steps-1); read-only."""
        if not 0 <= step < self.n_steps:
            raise IndexError(f"step {step} of {self.n_steps}")
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self.batch_size
        return self.order(epoch)[start : start + self.batch_size]

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The permutation [n] of an epoch; read-only."""
        return _permutation(self.n, self.seed, epoch)

    def rng(self, step: int) -> np.random.Generator:
        """The random numbers of `step`'s augmentation."""
        return generator(self.seed, step, AUGMENTATION)
