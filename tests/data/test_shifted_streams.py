"""Streams that are correlated, class-incremental or drifting: functions of (seed, step), no instance lost."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtrain.data.drift import Drift
from qtrain.data.labels import labelled, noisy
from qtrain.data.ordered import CorrelatedBatches, IncrementalBatches
from qtrain.data.views import still, strong, weak
from qtrain.data.warp import affine, blur, rotations, shift
from qtrain.errors import QtrainError


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 20), st.integers(1, 7), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_a_correlated_epoch_is_a_permutation_in_runs_of_one_class(n, n_classes, run_length, batch_size, seed):
    labels = rng(n).integers(0, n_classes, n)
    stream = CorrelatedBatches(n, batch_size, n_epochs=2, seed=seed, labels=labels, run_length=run_length)
    first = np.concatenate([stream.indices(s) for s in range(stream.steps_per_epoch)])
    assert sorted(first) == list(range(n))
    # every class has ceil(count / run_length) runs; neighbouring ones of a class may join
    n_runs = sum(-(-int((labels == c).sum()) // run_length) for c in range(n_classes))
    assert len(list(itertools.groupby(labels[first]))) <= n_runs
    again = CorrelatedBatches(n, batch_size, n_epochs=2, seed=seed, labels=labels, run_length=run_length)
    for step in reversed(range(stream.n_steps)):  # asked in any order: the same
        assert (again.indices(step) == stream.indices(step)).all()


def test_runs_have_their_length_where_the_classes_divide():
    labels = np.repeat(np.arange(4), 20)
    stream = CorrelatedBatches(80, 80, n_epochs=1, seed=1, labels=labels, run_length=5)
    lengths = [len(list(run)) for _, run in itertools.groupby(labels[stream.indices(0)])]
    assert all(length % 5 == 0 for length in lengths)


@given(st.integers(1, 4), st.integers(4, 40), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_class_incremental_tasks_share_the_steps_and_show_their_own_classes(n_tasks, n_steps, batch_size):
    labels = np.arange(48) % 4
    stream = IncrementalBatches(48, batch_size, n_steps=n_steps, labels=labels, n_tasks=n_tasks)
    groups = [set(g) for g in np.array_split(np.arange(4), n_tasks)]
    shown = [set(labels[stream.indices(step)]) for step in range(n_steps)]
    tasks = [next(i for i, g in enumerate(groups) if s <= g) for s in shown]
    assert tasks == sorted(tasks)
    counts = [tasks.count(t) for t in range(n_tasks)]
    assert max(counts) - min(counts) <= 1


def test_more_tasks_than_classes_are_refused():
    with pytest.raises(QtrainError, match="must be 1 to 2"):
        IncrementalBatches(4, 2, n_steps=9, labels=np.array([0, 1, 0, 1]), n_tasks=3)


def test_a_drift_grows_linearly_from_nothing():
    drift = Drift("rotation", 0.8, True, 5)
    assert [drift.severity_at(s) for s in range(6)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8])
    images = rng().normal(size=(2, 1, 6, 6)).astype(np.float32)
    assert (drift.apply(images, 0) == images).all()
    assert (drift.apply(images, 4) != images).any()
    assert Drift("rotation", 0.8).severity_at(0) == 0.8


@pytest.mark.parametrize("kind", ["rotation", "noise", "blur", "contrast"])
def test_every_drift_keeps_shape_and_type_and_repeats_itself(kind):
    images = rng().normal(size=(3, 2, 8, 6)).astype(np.float32)
    drift = Drift(kind, 1.0, seed=4)
    out = drift.apply(images, 7)
    assert out.shape == images.shape
    assert out.dtype == np.float32
    assert (out == drift.apply(images, 7)).all()
    assert (out != images).any()
    if kind == "contrast":  # 0.2 of the deviation is left, the mean stays
        assert out.std((2, 3)) == pytest.approx(0.2 * images.std((2, 3)), rel=1e-4)
        assert out.mean((2, 3)) == pytest.approx(images.mean((2, 3)), abs=1e-5)
    if kind == "noise":  # standard deviation 1 added: 288 draws, 4 sigma of their deviation's deviation
        assert (out - images).std() == pytest.approx(1, abs=4 / np.sqrt(2 * out.size))
        assert (out != drift.apply(images, 8)).any()


def test_a_quarter_turn_is_exact_and_edges_repeat():
    image = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    turned = affine(image, rotations(np.array([90.0])))[0, 0]
    assert turned == pytest.approx(np.rot90(image[0, 0]), abs=1e-5) or turned == pytest.approx(
        np.rot90(image[0, 0], -1), abs=1e-5
    )
    assert affine(image, np.eye(2)[None]) == pytest.approx(image)
    moved = shift(image, np.array([1]), np.array([0]), np.array([False]))[0, 0]
    assert moved.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    flipped = shift(image, np.array([0]), np.array([0]), np.array([True]))
    assert (flipped == still(image)).all()
    assert flipped[0, 0].tolist() == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]


def test_the_still_view_of_what_may_not_be_mirrored_is_a_shift():
    image = np.arange(16, dtype=np.float32).reshape(1, 1, 1, 16)
    assert still(image, flip=False)[0, 0, 0].tolist() == [0, 0, *range(14)]  # 0.125 of 16: by 2, the edge repeats


def test_blur_keeps_a_constant_and_the_middle_of_a_point():
    assert blur(np.full((1, 1, 7, 7), 3.0, np.float32), 1.0) == pytest.approx(np.full((1, 1, 7, 7), 3.0))
    point = np.zeros((1, 1, 9, 9), np.float32)
    point[0, 0, 4, 4] = 1
    taps = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    assert blur(point, 1.0)[0, 0, 4, 4] == pytest.approx((1 / taps.sum()) ** 2, rel=1e-5)


@pytest.mark.parametrize("view", [weak, strong])
def test_views_follow_their_random_numbers_and_move_every_image_its_own_way(view):
    images = rng().normal(size=(4, 1, 8, 8)).astype(np.float32)
    images[1:] = images[0]
    seen = view(images, rng(1))
    assert seen.shape == images.shape
    assert (seen == view(images, rng(1))).all()
    assert any((seen[0] != other).any() for other in seen[1:])


def test_a_weak_view_without_flip_is_a_shift():
    images = np.tile(np.arange(16, dtype=np.float32), (5, 1, 16, 1))  # rises to the right: mirrored it would fall
    assert (np.diff(weak(images, rng(2), flip=False), axis=-1) >= 0).all()


@given(st.integers(10, 300), st.floats(0, 1), st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_label_noise_touches_its_share_and_stays_in_range(n, rate, n_classes):
    labels = np.arange(n) % n_classes
    changed = noisy(labels, n_classes, rate, 3)
    assert (changed != labels).sum() <= round(rate * n)
    assert changed.min() >= 0
    assert changed.max() < n_classes
    assert (changed == noisy(labels, n_classes, rate, 3)).all()


def test_labelled_instances_are_balanced_and_refused_where_too_few():
    labels = np.repeat(np.arange(3), (5, 9, 4))
    assert np.bincount(labels[labelled(labels, 7, 0)]).tolist() == [3, 2, 2]
    with pytest.raises(QtrainError, match="class 2 has only 4"):
        labelled(labels, 15, 0)
    with pytest.raises(QtrainError, match="at least one a class, 3"):
        labelled(labels, 2, 0)
