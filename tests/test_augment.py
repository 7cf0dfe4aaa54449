from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodedge.backend import use_backend
from bloodedge.errors import ConfigError
from bloodedge.train.augment import (
    NO_AUGMENTATION,
    VIEWS,
    AugmentConfig,
    draw,
    shrink,
    view_of,
)
from bloodedge.train.augment_ops import STAINS, augment, mix_targets, shrink_by
from bloodedge.train.config import FitConfig
from bloodedge.train.learner import make_learner
from bloodedge.train.targets import HardLabels


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def augmented(images: np.ndarray, config: AugmentConfig, **draws) -> np.ndarray:
    given = {"view": np.zeros(len(images), np.int32)} | {k: np.array(v) for k, v in draws.items()}
    return np.asarray(augment(images, given, config))


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
def test_augmenting_equals_viewing_one_by_one(chosen: list[int]):
    images = some_images(len(chosen))
    batch = augmented(images, AugmentConfig(shift=0, brightness=0, colour=0), view=chosen)
    for row, (image, view) in enumerate(zip(images, chosen, strict=True)):
        np.testing.assert_array_equal(batch[row], view_of(image[None], view)[0])


@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, VIEWS - 1))
def test_a_shift_moves_the_content_and_mirrors_the_border(down: int, right: int, view: int):
    images = some_images(1)
    config = AugmentConfig(shift=0.4, brightness=0, colour=0)
    moved = augmented(images, config, shift=np.int32([[down, right]]), view=np.int32([view]))
    padded = np.pad(images[0], ((3, 3), (3, 3), (0, 0)), mode="reflect")
    expected = view_of(padded[None, 3 - down : 11 - down, 3 - right : 11 - right], view)
    np.testing.assert_array_equal(moved, expected)


def test_without_augmentation_the_pixels_are_untouched():
    images = some_images()
    draws = draw(NO_AUGMENTATION, 6, 8, np.random.default_rng(0))
    assert set(draws) == {"view"}
    np.testing.assert_array_equal(augmented(images, NO_AUGMENTATION, **draws), images)


def test_a_zoom_magnifies_about_the_middle_in_every_view():
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (16, 16))
    images = np.repeat(ramp[None, :, :, None], 3, axis=3)
    config = AugmentConfig(shift=0, scale=0.5, brightness=0, colour=0)
    for view in range(VIEWS):
        views = np.int32([view])
        zoomed = augmented(images, config, zoom=np.float32([2.0]), view=views)[0]
        back = view_of(zoomed[None], view if view not in (5, 6) else 11 - view)[0]
        # 75 is the middle of the ramp; a zoom of 2 halves its slope.
        np.testing.assert_allclose(back[:, 0, 0], 75 + 5 * (np.arange(16) - 7.5), atol=1e-3)
        same = augmented(images, config, zoom=np.float32([1.0]), view=views)
        np.testing.assert_allclose(same, view_of(images, view), atol=1e-3)


def test_colour_stays_in_range_and_is_drawn_per_image():
    images = some_images(64)
    config = AugmentConfig(views=1, shift=0, brightness=0.3, colour=0.3)
    draws = draw(config, 64, 8, np.random.default_rng(0))
    batch = augmented(images, config, **draws)
    assert batch.min() >= 0
    assert batch.max() <= 255
    expected = images * draws["gain"][:, None, None] + draws["bias"][:, None, None, None]
    np.testing.assert_allclose(batch, np.clip(expected, 0, 255), atol=1e-3)
    assert np.ptp(draws["gain"], axis=0).min() > 0.5
    assert np.ptp(draws["bias"]) > 140


def test_exposure_changes_all_channels_alike_and_far():
    images = some_images(64)
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, exposure=0.4)
    gain = draw(config, 64, 8, np.random.default_rng(0))["gain"]
    assert (gain == gain[:, :1]).all()
    assert 0.6 <= gain.min() < 0.65
    assert 1.35 < gain.max() <= 1.4
    batch = augmented(images, config, gain=gain)
    np.testing.assert_allclose(batch, np.clip(images * gain[:, None, None], 0, 255), atol=1e-3)


def test_exposure_leaves_each_channel_its_own_gain():
    config = AugmentConfig(colour=0.2, exposure=0.3)
    gain = draw(config, 400, 8, np.random.default_rng(0))["gain"]
    assert np.ptp(gain, axis=1).min() > 0
    assert gain.max() > 1.4
    assert gain.min() < 0.65


def test_contrast_changes_the_distance_from_each_images_mean():
    images = some_images(64)
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, contrast=0.5)
    factor = draw(config, 64, 8, np.random.default_rng(0))["contrast"]
    assert 0.5 <= factor.min() < 0.55
    assert 1.45 < factor.max() <= 1.5
    middle = images.mean(axis=(1, 2, 3), keepdims=True)
    wanted = middle + factor[:, None, None, None] * (images - middle)
    changed = augmented(images, config, contrast=factor)
    np.testing.assert_allclose(changed, np.clip(wanted, 0, 255), atol=1e-3)


def test_noise_has_the_drawn_strength_and_differs_between_images():
    grey = np.full((200, 16, 16, 3), 128, np.uint8)
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, noise=0.1)
    draws = draw(config, 200, 16, np.random.default_rng(0))
    noise = augmented(grey, config, **draws) - 128
    spread = noise.std(axis=(1, 2, 3))
    np.testing.assert_allclose(spread, draws["sigma"], rtol=0.15, atol=0.1)
    assert spread.min() < 2
    assert 23 < spread.max() < 28
    assert abs(noise.mean()) < 0.1
    strong = noise[spread > 20].reshape(-1, 768)
    alike = np.corrcoef(strong)[np.triu_indices(len(strong), 1)]
    assert np.median(np.abs(alike)) < 0.1


def test_stain_jitter_of_one_changes_nothing_and_more_haematoxylin_darkens_the_nucleus():
    purple = np.full((1, 4, 4, 3), (110, 70, 150), np.uint8)
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, stain=0.2)
    same = augmented(purple, config, stain=np.ones((1, 3), np.float32))
    np.testing.assert_allclose(same, purple, atol=0.05)
    more = augmented(purple, config, stain=np.float32([[1.2, 1, 1]]))
    assert (more < same - 1).all()
    drawn = draw(config, 500, 4, np.random.default_rng(0))["stain"]
    assert abs(drawn.mean() - 1) < 0.01
    assert 0.8 <= drawn.min() < 0.82
    assert 1.18 < drawn.max() <= 1.2


def test_stain_jitter_changes_the_density_of_its_own_stain_alone():
    density = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    pure = np.rint(255 * np.exp(-0.8 * density)).astype(np.uint8)[:, None, None]
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, stain=0.5)
    for stain in range(3):
        change = np.ones((3, 3), np.float32)
        change[:, stain] = 1.5
        found = augmented(pure, config, stain=change)[:, 0, 0]
        expected = 255 * np.exp(-0.8 * change[:, [stain]] * density)
        expected = np.where(np.eye(3)[stain][:, None] > 0, expected, pure[:, 0, 0])
        np.testing.assert_allclose(found, expected, atol=1.5)


def test_mixup_blends_images_and_targets_alike():
    images = some_images(4)
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, mixup=1.0)
    draws = draw(config, 4, 8, np.random.default_rng(1))
    share = draws["share"][:, None, None, None]
    mixed = augmented(images, config, **draws)
    expected = share * images + (1 - share) * images[draws["partner"]]
    np.testing.assert_allclose(mixed, expected, atol=1e-3)
    rows = np.eye(4, dtype=np.float32)
    targets = np.asarray(mix_targets(rows, draws))
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(
        (targets * rows).sum(axis=1)[draws["partner"] != np.arange(4)],
        draws["share"][draws["partner"] != np.arange(4)],
        atol=1e-6,
    )


def test_the_loss_is_of_targets_mixed_as_the_images_were():
    import keras

    net = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, mixup=1.0)
    learner = make_learner(net, FitConfig(1, 4, augment=config), 1, None)
    labels = HardLabels(np.arange(4), 4)
    learner.compile(loss=labels.loss)
    share, partner = np.float32([0.7, 0.6, 0.9, 0.8]), np.array([1, 2, 3, 0], np.int32)
    logits = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    rows = labels.for_batch(np.arange(4), np.zeros(4, np.int64))
    found = learner.compute_loss({"share": share, "partner": partner}, rows, logits)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    mixed = share[:, None] * np.eye(4) + (1 - share[:, None]) * np.eye(4)[partner]
    assert float(found) == pytest.approx(-(mixed * log_p).sum(1).mean(), rel=1e-5)


def test_cutmix_pastes_the_share_that_the_targets_lose():
    images = np.zeros((200, 8, 8, 3), np.uint8)
    images[100:] = 255
    config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, cutmix=1.0)
    draws = draw(config, 200, 8, np.random.default_rng(2))
    mixed = augmented(images, config, **draws)
    assert set(np.unique(mixed)) == {0.0, 255.0}
    bright = np.asarray(mix_targets((images[:, 0, 0, :1] / 255).astype(np.float32), draws))[:, 0]
    np.testing.assert_allclose(mixed.mean(axis=(1, 2, 3)) / 255, bright, atol=1e-5)


def test_mixup_and_cutmix_share_the_batch():
    config = AugmentConfig(mixup=0.4, cutmix=1.0)
    box = draw(config, 400, 64, np.random.default_rng(0))["box"]
    assert 0.35 < (box[:, 1] > 0).mean() < 0.6


def test_the_same_generator_gives_the_same_draws_within_their_ranges():
    config = AugmentConfig(scale=0.1, stain=0.05, mixup=0.2)
    first, second = (draw(config, 600, 64, np.random.default_rng(5)) for _ in range(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    assert set(first["view"]) == set(range(VIEWS))
    assert set(first["shift"].ravel()) == set(range(-4, 5))
    assert 0.9 <= first["zoom"].min() < 0.91
    assert np.abs(first["bias"]).max() <= 255 * config.brightness


def test_shrinking_keeps_the_mean_and_refuses_uneven_sizes():
    batch = some_images().astype(np.float32)
    np.testing.assert_allclose(
        shrink(batch, 4).mean(axis=(1, 2)), batch.mean(axis=(1, 2)), rtol=1e-5
    )
    np.testing.assert_allclose(shrink(batch, 4)[0, 0, 0], batch[0, :2, :2].mean(axis=(0, 1)))
    with pytest.raises(ConfigError, match="divisor"):
        shrink(batch, 3)
    np.testing.assert_allclose(np.asarray(shrink_by(batch, 2)), shrink(batch, 4), atol=1e-3)
    assert shrink_by(batch, 1) is batch


@pytest.mark.parametrize(
    "bad", [{"views": 0}, {"views": 9}, {"shift": 0.6}, {"colour": -0.1}, {"mixup": 20}]
)
def test_bad_settings_are_refused_when_built(bad: dict[str, float]):
    with pytest.raises(ConfigError):
        AugmentConfig(**bad)
