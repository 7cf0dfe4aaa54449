from __future__ import annotations

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.data.synthetic import synthesize
from bloodedge.images import opencv
from bloodedge.train.augment import NO_AUGMENTATION, AugmentConfig, draw
from bloodedge.train.augment_ops import augment
from bloodedge.train.camera import blurred, compressed


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    return synthesize([2, 2, 2, 2, 1, 1, 1, 1], 64, 0)[0]


def by_opencv(images: np.ndarray, quality: int) -> np.ndarray:
    cv2 = opencv()
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    files = [cv2.imencode(".jpg", image[..., ::-1], flags)[1] for image in images]
    return np.stack([cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] for file in files])


def as_jpeg(images: np.ndarray, quality: int | np.ndarray) -> np.ndarray:
    qualities = np.broadcast_to(np.int32(quality), len(images))
    return np.asarray(compressed(images.astype(np.float32), qualities))


@pytest.mark.parametrize("quality", [7, 30, 50, 75, 95])
# 28 pixels end within a block, also of the halved colours.
@pytest.mark.parametrize("side", [64, 28])
def test_jpeg_is_what_libjpeg_makes_of_a_picture(cells: np.ndarray, quality: int, side: int):
    images = cells[:, :side, :side]
    real = by_opencv(images, quality).astype(np.float32)
    ours = as_jpeg(images, quality)
    assert np.abs(ours - real).mean() < 0.25 * np.abs(real - images).mean() + 0.5
    # Not by blurring alone: what the file loses is the same, pixel by pixel.
    lost = np.corrcoef((ours - images).ravel(), (real - images).ravel())[0, 1]
    assert lost > 0.9


def test_an_image_without_a_quality_is_left_alone(cells: np.ndarray):
    quality = np.int32([0, 10] * 6)
    ours = as_jpeg(cells, quality)
    np.testing.assert_array_equal(ours[::2], cells[::2])
    assert (np.abs(ours[1::2] - cells[1::2]).mean(axis=(1, 2, 3)) > 1).all()
    assert ours.min() >= 0
    assert ours.max() <= 255


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_blur_is_a_gaussian(cells: np.ndarray, sigma: float):
    images = cells.astype(np.float32)
    wanted = [opencv().GaussianBlur(image, (0, 0), sigma) for image in images]
    ours = np.asarray(blurred(images, np.full(len(cells), sigma, np.float32)))
    edge = int(4 * sigma)
    inside = slice(edge, -edge)
    np.testing.assert_allclose(
        ours[:, inside, inside], np.stack(wanted)[:, inside, inside], atol=0.2
    )


def test_blur_keeps_a_plain_image_to_its_border_and_sigma_0_every_image(cells: np.ndarray):
    sigma = np.float32([0, 2])
    pair = np.stack([cells[0], np.full_like(cells[0], 180)]).astype(np.float32)
    np.testing.assert_allclose(np.asarray(blurred(pair, sigma)), pair, atol=1e-3)


def test_draws_are_in_their_ranges_and_leave_those_of_other_settings_as_they_were():
    config = AugmentConfig(noise=0.1)
    more = AugmentConfig(noise=0.1, blur=1 / 32, jpeg=0.5)
    before = draw(config, 2000, 64, np.random.default_rng(0))
    draws = draw(more, 2000, 64, np.random.default_rng(0))
    for name, values in before.items():
        np.testing.assert_array_equal(draws[name], values)
    assert 0 <= draws["blur"].min() < 0.01
    assert 1.99 < draws["blur"].max() <= 2
    quality = draws["quality"]
    assert 0.46 < (quality == 0).mean() < 0.54
    assert (quality[quality > 0].min(), quality.max()) == (10, 95)


def test_both_are_part_of_augmentation_and_of_no_other(cells: np.ndarray):
    for change in ({"blur": 1 / 32}, {"jpeg": 1.0}, {"contrast": 0.4}):
        config = AugmentConfig(views=1, shift=0, brightness=0, colour=0, **change)
        assert config.recolours
        assert config.wide
        draws = draw(config, len(cells), 64, np.random.default_rng(0))
        spoilt = np.asarray(augment(cells, draws, config))
        assert np.abs(spoilt - cells).mean() > 0.5
    assert not NO_AUGMENTATION.wide


def test_a_whole_share_is_every_image():
    config = AugmentConfig(jpeg=1.0)
    assert (draw(config, 500, 8, np.random.default_rng(0))["quality"] > 0).all()
