"""The order of instances: a permutation each epoch, known from the step number alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtrain.data.streams import Batches
from qtrain.errors import QtrainError

SIZES = {"n": st.integers(1, 50), "batch_size": st.integers(1, 60), "seed": st.integers(0, 2**40)}


@given(**SIZES, n_epochs=st.integers(1, 4))
def test_every_index_exactly_once_an_epoch(n: int, batch_size: int, seed: int, n_epochs: int) -> None:
    batches = Batches(n, batch_size, n_epochs=n_epochs, seed=seed)
    assert batches.n_steps == n_epochs * batches.steps_per_epoch
    for epoch in range(n_epochs):
        first = epoch * batches.steps_per_epoch
        steps = [batches.indices(step) for step in range(first, first + batches.steps_per_epoch)]
        assert sorted(np.concatenate(steps)) == list(range(n))
        assert {len(step) for step in steps[:-1]} <= {batch_size}
        assert len(steps[-1]) == (n % batch_size or batch_size)


@given(**SIZES, n_steps=st.integers(1, 30), data=st.data())
def test_any_step_again_from_the_numbers_alone(n: int, batch_size: int, seed: int, n_steps: int, data) -> None:
    step = data.draw(st.integers(0, n_steps - 1))
    longer = Batches(n, batch_size, n_steps=n_steps + 7, seed=seed)
    first, again = Batches(n, batch_size, n_steps=n_steps, seed=seed).indices(step), longer.indices(step)
    assert first.dtype == np.int64
    assert np.array_equal(first, again)


def test_the_permutation_is_the_documented_one() -> None:
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([9, 1])))
    assert np.array_equal(Batches(100, 100, n_epochs=2, seed=9).indices(1), generator.permutation(100))


def test_epochs_seeds_and_augmentation_differ() -> None:
    batches, other = Batches(1000, 1000, n_epochs=2, seed=1), Batches(1000, 1000, n_epochs=2, seed=2)
    orders = [batches.indices(0), batches.indices(1), other.indices(0), batches.rng(0).permutation(1000)]
    orders += [batches.rng(1).permutation(1000), other.rng(0).permutation(1000)]
    assert len({order.tobytes() for order in orders}) == len(orders)
    assert np.array_equal(batches.rng(1).permutation(1000), orders[4])


def test_indices_cannot_be_changed_under_another_reader() -> None:
    indices = Batches(10, 5, n_epochs=1).indices(0)
    with pytest.raises(ValueError, match="read-only"):
        indices[0] = 3


@pytest.mark.parametrize("step", [-1, 4])
def test_steps_outside_the_run(step: int) -> None:
    with pytest.raises(IndexError, match=f"step {step} of 4"):
        Batches(10, 5, n_epochs=2).indices(step)


@pytest.mark.parametrize(
    "numbers",
    [
        {"n": 0, "batch_size": 1, "n_epochs": 1},
        {"n": 1, "batch_size": 0, "n_epochs": 1},
        {"n": 1, "batch_size": 1},
        {"n": 1, "batch_size": 1, "n_epochs": 1, "n_steps": 1},
        {"n": 1, "batch_size": 1, "n_epochs": -1, "n_steps": 3},
        {"n": 1, "batch_size": 1, "n_epochs": 1, "seed": -1},
    ],
)
def test_impossible_numbers(numbers: dict) -> None:
    with pytest.raises(QtrainError, match="at least"):
        Batches(**numbers)
