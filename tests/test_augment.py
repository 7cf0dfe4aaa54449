from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodedge.errors import ConfigError
from bloodedge.train.augment import (
    NO_AUGMENTATION,
    VIEWS,
    AugmentConfig,
    augment_batch,
    gather_views,
    shrink,
    view_of,
)


def some_images(n: int = 6, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_the_eight_views_are_the_eight_symmetries_of_the_square():
    images = some_images()
    views = [view_of(images, v) for v in range(VIEWS)]
    turns = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    expected = [*turns, *(turn[:, :, ::-1] for turn in turns)]
    for want in expected:
        assert sum(np.array_equal(want, have) for have in views) == 1


@given(st.lists(st.integers(0, VIEWS - 1), min_size=1, max_size=6))
def test_gathering_equals_viewing_one_by_one(chosen: list[int]):
    images = some_images()
    views = np.array(chosen)
    index = np.arange(len(views))[::-1].copy()
    batch = gather_views(images, index, views, np.zeros((len(views), 2), dtype=np.int64))
    for row, (i, v) in enumerate(zip(index, views, strict=True)):
        np.testing.assert_array_equal(batch[row], view_of(images, v)[i])


@given(st.integers(-3, 3), st.integers(-3, 3))
def test_a_shift_moves_the_content_and_mirrors_the_border(down: int, right: int):
    images = some_images(1)
    index, views = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    moved = gather_views(images, index, views, np.array([[down, right]]))[0]
    padded = np.pad(images[0], ((3, 3), (3, 3), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(moved, padded[3 - down : 11 - down, 3 - right : 11 - right])


def test_without_augmentation_the_pixels_are_untouched():
    images = some_images()
    batch, views = augment_batch(images, np.arange(6), NO_AUGMENTATION, np.random.default_rng(0))
    np.testing.assert_array_equal(batch, images)
    assert not views.any()


def test_colour_stays_in_range_and_is_drawn_per_image():
    images = some_images(64)
    config = AugmentConfig(views=1, shift=0, brightness=0.3, colour=0.3)
    batch, _ = augment_batch(images, np.arange(64), config, np.random.default_rng(0))
    assert batch.min() >= 0
    assert batch.max() <= 255
    change = (batch - images).mean(axis=(1, 2, 3))
    assert change.std() > 5
    assert abs(change.mean()) < 20


def test_the_same_generator_gives_the_same_batch():
    images = some_images()
    first, second = (
        augment_batch(images, np.arange(6), AugmentConfig(), np.random.default_rng(5))[0]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_shrinking_keeps_the_mean_and_refuses_uneven_sizes():
    batch = some_images().astype(np.float32)
    np.testing.assert_allclose(
        shrink(batch, 4).mean(axis=(1, 2)), batch.mean(axis=(1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(shrink(batch, 4)[0, 0, 0], batch[0, :2, :2].mean(axis=(0, 1)))
    with pytest.raises(ConfigError, match="divisor"):
        shrink(batch, 3)


@pytest.mark.parametrize("bad", [{"views": 0}, {"views": 9}, {"shift": 0.6}, {"colour": -0.1}])
def test_bad_settings_are_refused_when_built(bad: dict[str, float]):
    with pytest.raises(ConfigError):
        AugmentConfig(**bad)
