"""Batch norm's statistics taken anew: those of the images, whatever the batches."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.train import renorm as module
from bloodedge.train.renorm import renorm

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3)).astype(np.uint8)


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def net(*, dropout: float = 0.0, frozen: bool = False) -> Any:
    """A convolution between two batch norms."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="first", trainable=not frozen)(image)
    x = layers.Dropout(dropout, name="drop")(x)
    x = layers.Conv2D(5, 3, name="conv")(x)
    x = layers.BatchNormalization(momentum=0.7, name="second")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(image, layers.Dense(3)(x))


def statistics(model: Any, name: str) -> tuple[Any, Any]:
    layer = model.get_layer(name)
    return np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)


@pytest.mark.parametrize("batch", [48, 16])
def test_the_first_layer_sees_the_images(batch: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BATCH", batch)
    model = net(dropout=0.5)
    before = [np.asarray(w) for w in model.trainable_variables]
    assert renorm(model, IMAGES) == 2
    mean, variance = statistics(model, "first")
    np.testing.assert_allclose(mean, IMAGES.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(variance, IMAGES.var(axis=(0, 1, 2)), rtol=1e-4)
    for a, b in zip(before, model.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
    assert model.get_layer("second").momentum == 0.7
    assert model.get_layer("drop").rate == 0.5


def test_afterwards_a_layer_gives_what_its_scale_and_shift_say(monkeypatch: pytest.MonkeyPatch):
    import keras

    monkeypatch.setattr(module, "_BATCH", 48)
    model = net(dropout=0.5)
    model.get_layer("second").beta.assign([1.0, 2.0, 3.0, 4.0, 5.0])
    renorm(model, IMAGES)
    normalised = keras.Model(model.inputs, model.get_layer("second").output)
    out = np.asarray(normalised(IMAGES.astype(np.float32)))
    np.testing.assert_allclose(out.mean(axis=(0, 1, 2)), [1, 2, 3, 4, 5], atol=1e-3)
    # Batch norm adds 0.001 to the variance.
    _, variance = statistics(model, "second")
    expected = np.sqrt(variance / (variance + 1e-3))
    np.testing.assert_allclose(out.std(axis=(0, 1, 2)), expected, atol=1e-3)


def test_a_frozen_layer_is_left_alone():
    model = net(frozen=True)
    assert renorm(model, IMAGES) == 1
    np.testing.assert_array_equal(statistics(model, "first"), [np.zeros(3), np.ones(3)])


def test_a_net_without_batch_norm_is_left_alone():
    import keras

    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)])
    before = model.get_weights()
    assert renorm(model, IMAGES) == 0
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_every_backend_finds_the_same():
    code = """
import sys
import numpy as np
from bloodedge.backend import use_backend
keras = use_backend("jax")
from bloodedge.train.renorm import renorm
images = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3)).astype(np.uint8)
layers = keras.layers
model = keras.Sequential([keras.Input((8, 8, 3)), layers.BatchNormalization(), layers.Dropout(0.5),
                          layers.Flatten(), layers.Dense(3)])
assert renorm(model, images) == 1
mean, variance = (np.asarray(v) for v in model.layers[0].non_trainable_variables)
np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-5)
np.testing.assert_allclose(variance, images.var(axis=(0, 1, 2)), rtol=1e-4)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
