"""Fused batch norms learn as Keras' own do, batches in parts as whole ones; both predict alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.cli.starting import start_training
from bloodedge.compress.features import with_features
from bloodedge.compress.targets import KdConfig, LiveTeachers
from bloodedge.data.dataset import Split
from bloodedge.errors import ConfigError
from bloodedge.train import device, loop
from bloodedge.train.augment import NO_AUGMENTATION, AugmentConfig
from bloodedge.train.config import FitConfig
from bloodedge.train.fused import with_fused_norms
from bloodedge.train.registry import ModelConfig, build
from bloodedge.train.targets import HardLabels
from bloodedge.train.trainer import Trainer

keras = use_backend()
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow trains so"
)
SIDE, CLASSES, BATCH = 48, 3, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (2 * BATCH, SIDE, SIDE, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def one_device() -> Iterator[None]:
    """Leave one device to the other tests."""
    yield
    device.spread_over("1", BATCH)


def fresh(model: str = "cnn_se") -> Any:
    keras.utils.set_random_seed(0)
    return build(ModelConfig(model, CLASSES, SIDE), size=SIDE)


def pass_over(net: Any) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Return logits, gradients and weights after one pass in training."""
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    with tf.GradientTape() as tape:
        logits = net(IMAGES, training=True)
        loss = tf.reduce_mean(logits**2)
    gradients = tape.gradient(loss, [v.value for v in net.trainable_variables])
    return np.asarray(logits), [np.asarray(g) for g in gradients], net.get_weights()


def test_features_of_a_fused_net_are_those_of_the_net():
    net = fresh()
    found, expected = (
        np.asarray(with_features(one)(IMAGES, training=False))
        for one in (with_fused_norms(net), net)
    )
    assert found.shape == (2 * BATCH, CLASSES + 32)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def unscaled() -> Any:
    """Return a net whose norms have no scale, as Inception's, or no offset."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    x = keras.layers.BatchNormalization(scale=False)(x)
    x = keras.layers.BatchNormalization(center=False, momentum=0.7)(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


def flat() -> Any:
    """Return a net, in a row, whose norms take single values of an image."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            layers.Conv2D(6, 3),
            layers.GlobalAveragePooling2D(),
            layers.BatchNormalization(),
            layers.Dense(CLASSES),
            layers.BatchNormalization(axis=1, scale=False),
        ]
    )


@pytest.mark.parametrize("make", [fresh, unscaled, flat])
def test_a_fused_norm_computes_what_keras_does(make: Callable[[], Any]):
    expected = pass_over(make())
    net = make()
    before = net.get_weights()
    fused = with_fused_norms(net)
    norms = [x for x in net.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert norms
    assert not [x for x in fused.layers if isinstance(x, keras.layers.BatchNormalization)]
    logits, gradients, _ = pass_over(fused)
    np.testing.assert_allclose(logits, expected[0], rtol=2e-3, atol=2e-4)
    for found, wanted in zip(gradients, expected[1], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-2, atol=2e-4)
    for found, wanted in zip(net.get_weights(), expected[2], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=1e-4)
    assert any((a != b).any() for a, b in zip(before, net.get_weights(), strict=True))


@pytest.mark.parametrize("channels", [8, 16, 40, 64])
def test_a_fused_norm_in_half_precision_keeps_its_statistics_in_single(channels: int):
    import tensorflow as tf

    x = tf.cast(RNG.normal(3, 2, (16, 8, 8, channels)), "bfloat16")
    image = keras.Input((8, 8, channels), dtype="bfloat16")
    norm = keras.layers.BatchNormalization(dtype="mixed_bfloat16", momentum=0.0)
    fused = with_fused_norms(keras.Model(image, norm(image)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fused(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, "float32") ** 2)
    values = np.asarray(tf.cast(x, "float32"))
    mean, variance = values.mean((0, 1, 2)), values.var((0, 1, 2))
    assert y.dtype == x.dtype
    np.testing.assert_allclose(norm.moving_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, variance, rtol=1e-4)
    whitened = (values - mean) / np.sqrt(variance + norm.epsilon)
    np.testing.assert_allclose(np.asarray(tf.cast(y, "float32")), whitened, rtol=1e-2, atol=1e-2)
    slope = np.asarray(tape.gradient(loss, norm.gamma.value))
    np.testing.assert_allclose(slope, 2 * (whitened**2).sum((0, 1, 2)), rtol=1e-2)


def test_a_norm_along_another_axis_is_left_to_keras():
    image = keras.Input((6, 8, 3))
    norm = keras.layers.BatchNormalization(axis=1)
    net = keras.Model(image, norm(image))
    fused = with_fused_norms(net)
    assert norm in fused.layers
    x = IMAGES[:, :6, :8]
    np.testing.assert_allclose(fused(x, training=True), net(x, training=True), rtol=1e-5, atol=1e-5)


def test_a_fused_norm_leaves_a_frozen_one_as_it_is():
    net = fresh()
    for layer in net.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    before = net.get_weights()
    _, _, after = pass_over(with_fused_norms(net))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def trained(parts: str, model: str, augment: AugmentConfig = NO_AUGMENTATION) -> list[np.ndarray]:
    """Return the weights after an epoch of two steps on as many devices."""
    assert device.spread_over(parts, BATCH) == int(parts)
    net = fresh(model)
    labels = np.arange(len(IMAGES)) % CLASSES
    split = Split(IMAGES.astype(np.uint8), labels)
    config = FitConfig(epochs=2, batch=BATCH, augment=augment)
    trainer = Trainer(net, split, HardLabels(labels, CLASSES), config)
    row = trainer.train_epoch(0, SIDE)
    assert np.isfinite(row["train_loss"])
    return [np.asarray(w) for w in net.get_weights()]


@pytest.fixture
def four_cores(monkeypatch) -> None:
    """Pretend that there are four cores."""
    monkeypatch.setattr(device, "usable_cores", lambda: 4)


MIXED = replace(AugmentConfig(), mixup=0.5, cutmix=0.5)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("augment", [NO_AUGMENTATION, AugmentConfig(), MIXED])
def test_without_batch_norm_parts_of_a_batch_learn_what_the_whole_does(augment: AugmentConfig):
    whole = trained("1", "study_cnn4", augment)
    parts = trained("4", "study_cnn4", augment)
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.usefixtures("four_cores")
def test_batch_norm_takes_its_statistics_over_a_part():
    whole, parts = trained("1", "cnn_se"), trained("2", "cnn_se")
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(whole, parts, strict=True))


def test_parts_move_the_running_statistics_as_far_as_a_whole_batch_does():
    image = keras.Input((SIDE, SIDE, 3))
    norm = keras.layers.BatchNormalization(momentum=0.9)
    net = keras.Model(image, norm(image))
    part = np.full((4, SIDE, SIDE, 3), 2.0, np.float32)
    fused = with_fused_norms(net, 16)
    for _ in range(16):
        fused(part, training=True)
    np.testing.assert_allclose(norm.moving_mean, 2 * (1 - 0.9), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, 0.9, rtol=1e-4)


@pytest.mark.usefixtures("four_cores")
def test_beside_a_live_teacher_parts_move_the_running_statistics_no_faster():
    labels = np.arange(len(IMAGES)) % CLASSES
    split = Split(np.repeat(IMAGES[:1], len(IMAGES), axis=0).astype(np.uint8), labels)
    # Equal images: every part has the statistics of the whole.
    config = FitConfig(epochs=2, batch=BATCH, augment=NO_AUGMENTATION, learning_rate=1e-8)

    def moved(parts: str) -> list[np.ndarray]:
        device.spread_over(parts, BATCH)
        net = fresh()
        targets = LiveTeachers(labels, (fresh(),), KdConfig())
        Trainer(net, split, targets, config).train_epoch(0, SIDE)
        return [np.asarray(v) for v in net.non_trainable_variables if "moving" in v.path]

    whole = moved("1")
    assert len(whole) > 4
    for a, b in zip(whole, moved("4"), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-3)


@pytest.mark.usefixtures("four_cores")
def test_cores_that_cannot_share_a_batch_are_refused():
    assert device.sharing() == {}
    assert device.spread_over("all", BATCH) == 4
    assert device.batch_parts() == 4
    assert device.sharing() == {"devices": 4}
    with pytest.raises(ConfigError, match="expected all, or 1 to 4"):
        device.spread_over("5", BATCH)
    with pytest.raises(ConfigError, match="--batch 6"):
        device.spread_over("3", BATCH)
    assert device.batch_parts() == 1


@pytest.mark.usefixtures("four_cores")
def test_few_images_make_one_batch_that_the_cores_must_share(monkeypatch):
    def start(images: int) -> Any:
        data = {"train": range(images)}
        monkeypatch.setattr("bloodedge.data.sources.load_data", lambda name, size: data)
        return start_training("few", size=None, backend=None, devices="2", batch=64)

    mends = "--devices 1, .*--batch 26"
    with pytest.raises(ConfigError, match=f"share a batch of 27, which is all.*{mends}"):
        start(27)
    with pytest.raises(ConfigError, match=r"2 devices, but 1 images in.*--devices 1"):
        start(1)
    for images in (26, 64, 65):
        assert len(start(images)["train"]) == images
    # A command of several fits knows the batch of each only here.
    split = Split(IMAGES[:7].astype(np.uint8), np.arange(7) % CLASSES)
    targets = HardLabels(split.labels, CLASSES)
    with pytest.raises(ConfigError, match=r"share a batch of 7, which is all.*--batch 6"):
        Trainer(fresh(), split, targets, FitConfig(epochs=1, batch=BATCH))
    device.spread_over("1", BATCH)
    Trainer(fresh(), split, targets, FitConfig(epochs=1, batch=BATCH))


@pytest.mark.usefixtures("four_cores")
def test_hosts_are_not_told_a_number_of_devices_which_they_refuse(monkeypatch):
    device.spread_over("4", BATCH)
    monkeypatch.setattr("bloodedge.hosts.count", lambda: 2)
    for images, wanted in ((27, "--batch 24, or another number of hosts"), (3, "fewer hosts")):
        with pytest.raises(ConfigError, match=wanted) as caught:
            device.check_batch(64, images)
        assert "--devices" not in str(caught.value)


@pytest.mark.usefixtures("four_cores")
def test_side_by_side_a_net_predicts_what_it_does_alone(monkeypatch):
    monkeypatch.setattr(loop, "_PREDICT_BATCH", 3)
    net, images = fresh(), IMAGES.astype(np.uint8)
    alone = loop.predict_logits(net, images)
    threads: set[int] = set()
    predict = net.predict_on_batch

    def noted(batch: Any) -> Any:
        threads.add(threading.get_ident())
        return predict(batch)

    net.predict_on_batch = noted
    device.spread_over("4", BATCH)
    np.testing.assert_array_equal(loop.predict_logits(net, images), alone)
    assert len(threads) > 1


@pytest.mark.usefixtures("four_cores")
def test_what_fails_side_by_side_ends_the_rest():
    device.spread_over("2", BATCH)
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ConfigError("item 1")
        time.sleep(0.02)
        return item

    with pytest.raises(ConfigError, match="item 1"), device.side_by_side(work, range(99)) as found:
        assert next(found) == 0
        list(found)
    assert len(begun) < 99


@pytest.mark.usefixtures("four_cores")
def test_parts_repeat_to_the_bit():
    for a, b in zip(trained("4", "cnn_se", MIXED), trained("4", "cnn_se", MIXED), strict=True):
        np.testing.assert_array_equal(a, b)
