"""Resizing and augmentation against their stated rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qtrain.data.transforms import augment, axis_weights, resize
from qtrain.errors import QtrainError


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@given(n_in=st.integers(1, 40), n_out=st.integers(1, 40))
def test_axis_weights_average_and_keep_left_and_right_alike(n_in: int, n_out: int) -> None:
    weights = axis_weights(n_in, n_out)
    assert weights.shape == (n_out, n_in)
    assert weights.min() >= 0
    assert weights.sum(axis=1) == pytest.approx(np.ones(n_out))
    assert weights[::-1, ::-1] == pytest.approx(weights, abs=1e-9)
    if n_out <= n_in:  # area averaging: every input pixel counts alike
        assert weights.sum(axis=0) == pytest.approx(np.full(n_in, n_out / n_in))
    if n_in == n_out:
        assert np.array_equal(weights, np.eye(n_in))


def test_shrinking_by_an_integer_factor_is_the_block_mean() -> None:
    images = random_images(5, 2, 6, 8)
    blocks = images.reshape(5, 2, 2, 3, 4, 2).sum(axis=(3, 5))  # sums of 3 x 2 pixels
    assert np.abs(resize(images, (2, 2, 4)) - blocks / 6).max() <= 0.5


def test_shrinking_by_another_factor_weighs_by_overlap() -> None:
    # 3 -> 2: each output pixel covers 1.5 input pixels, (a + b/2) / 1.5 and (b/2 + c) / 1.5
    assert resize(np.array([[[[30, 90, 240]]]], np.uint8), (1, 1, 2)).tolist() == [[[[50, 190]]]]


def test_growing_is_linear_between_centres_with_repeated_edges() -> None:
    # 2 -> 4: centres at -0.25, 0.25, 0.75, 1.25 of the input: 0, 25, 75, 100 % of the way from 40 to 80
    assert resize(np.array([[[[40, 80]]]], np.uint8), (1, 1, 4)).tolist() == [[[[40, 50, 70, 80]]]]


@given(value=st.integers(0, 255), channels=st.sampled_from([1, 3]), shape=st.tuples(*[st.integers(1, 20)] * 2),
       to=st.tuples(st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20)))  # fmt: skip
def test_a_constant_image_stays_that_constant(value: int, channels: int, shape: tuple, to: tuple) -> None:
    images = np.full((2, channels, *shape), value, np.uint8)
    resized = resize(images, to)
    assert (resized.shape, resized.dtype) == ((2, *to), np.uint8)
    assert np.all(resized == value)


def test_rgb_becomes_gray_by_luma_and_gray_is_repeated() -> None:
    pixels = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)[:, :, None, None]
    # 0.299, 0.587 and 0.114 of 255: 76.2, 149.7, 29.1
    assert resize(pixels, (1, 1, 1)).ravel().tolist() == [76, 150, 29]
    gray = random_images(2, 1, 4, 4)
    assert np.array_equal(resize(gray, (3, 4, 4)), np.repeat(gray, 3, axis=1))


def test_a_vector_reads_the_squarest_image_row_by_row() -> None:
    images = random_images(3, 1, 40, 64)
    vector = resize(images, (1, 1, 640))
    assert np.array_equal(vector.reshape(3, 1, 20, 32), resize(images, (1, 20, 32)))  # 20 x 32 = 640, 25 x 25.6 is not
    assert np.array_equal(resize(vector, (1, 1, 640)), vector)
    assert resize(images, (1, 1, 7)).shape == (3, 1, 1, 7)  # a prime: one row


def test_more_images_than_a_chunk_are_resized_alike() -> None:
    images = random_images(1030, 1, 4, 4)
    assert np.array_equal(resize(images, (1, 2, 2))[1020:], resize(images[1020:], (1, 2, 2)))


@pytest.mark.parametrize(("channels", "to"), [(3, 2), (2, 1), (2, 3), (4, 3)])
def test_other_channel_changes_are_refused(channels: int, to: int) -> None:
    with pytest.raises(QtrainError, match=f"{channels} channels cannot be given {to}"):
        resize(random_images(1, channels, 4, 4), (to, 5, 5))


def test_an_image_already_right_is_returned_as_it_is() -> None:
    images = random_images(2, 3, 4, 4)
    assert resize(images, (3, 4, 4)) is images


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (1, False), (2, True)])
def test_every_augmented_image_is_a_crop_of_its_own_image(pad: int, flip: bool) -> None:
    images = random_images(600, 2, 5, 6)
    found = augment(images, np.random.default_rng(1), pad, flip)
    assert (found.shape, found.dtype) == (images.shape, images.dtype)
    seen = set()
    for image, result in zip(images, found, strict=True):
        padded = np.zeros((2, 5 + 2 * pad, 6 + 2 * pad), np.uint8)
        padded[:, pad : pad + 5, pad : pad + 6] = image
        matches = [
            (top, left, mirrored)
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            for mirrored in ((False, True) if flip else (False,))
            if np.array_equal(padded[:, top : top + 5, left : left + 6][..., :: -1 if mirrored else 1], result)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == (2 * pad + 1) ** 2 * (1 + flip)  # every offset and mirroring occurs among 600 draws of <= 50


def test_augmentation_follows_its_generator() -> None:
    images = random_images(50, 1, 8, 8)
    first, again, other = (augment(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
