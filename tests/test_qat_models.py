"""Quantization-aware training takes every model of the registry, with every attention it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.backend import use_backend
from bloodedge.compress.fold import fold
from bloodedge.compress.rounding import kernels_of
from bloodedge.compress.simulate import Simulation
from bloodedge.train.modelio import load_model, save_model
from bloodedge.train.registry import ModelConfig, build, models, spec

WIDTHS = {"cnn_se": 0.25, "mobilenet_v3_small": 0.25, "study_cnn_se": 0.5}
QUICK = {"cnn_se"}
EVERY = [
    pytest.param(name, kind, marks=() if name in QUICK else pytest.mark.slow)
    for name in models()
    for kind in ("", *(kind for kind in spec(name).attention if kind != "none"))
]


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def small(name: str, attention: str) -> Any:
    """A narrow model with batch statistics that are neither 0 nor 1."""
    import keras

    keras.utils.set_random_seed(0)
    entry = spec(name)
    width = WIDTHS.get(name, 0.125) if entry.scalable else 1.0
    model = build(ModelConfig(name, 4, entry.min_size, width, attention), size=entry.min_size)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for weight in layer.weights:
            if weight.name in ("gamma", "moving_variance"):
                weight.assign(rng.uniform(0.8, 1.2, weight.shape))
            elif weight.name in ("beta", "moving_mean"):
                weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def noise(model: Any, count: int = 6) -> NDArray[np.uint8]:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def gradients(net: Any, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    import tensorflow as tf

    variables = net.trainable_variables
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(net(x, training=True) - 1.0))
    found = tape.gradient(loss, [v.value for v in variables])
    assert all(g is not None for g in found)
    return {v.path: np.asarray(g) for v, g in zip(variables, found, strict=True)}


@pytest.mark.parametrize(("name", "attention"), EVERY)
def test_every_layer_is_rounded_and_trains_and_the_model_is_an_ordinary_file(
    name: str, attention: str, tmp_path: Path
):
    folded = fold(small(name, attention)).model
    twin = Simulation(fold(folded))
    images = noise(folded)
    twin.observe(images)
    x = images.astype(np.float32)
    weighted = [layer.name for layer in twin.model.layers if kernels_of(layer)]
    assert sorted(twin.layers) == sorted(weighted)
    if "vit" not in name:
        assert twin.partly == {}
    plain = np.asarray(folded(x, training=False))
    rounded = np.asarray(twin.net(x, training=False))
    # Rounded, and yet the same net.
    assert np.abs(rounded - plain).max() > 0
    assert np.abs(rounded - plain).mean() < 0.5 * np.abs(plain).mean()

    exact, found = gradients(twin.model, x), gradients(twin.net, x)
    assert all(np.isfinite(g).all() for g in found.values())
    for layer in twin.layers:
        for kernel in twin.kernels(layer):
            gradient = found[kernel.path]
            # A unit that is dead in float is so here.
            assert gradient.any() == exact[kernel.path].any(), layer
            kernel.assign(kernel - 0.05 * np.sign(gradient) * np.abs(kernel).max())

    # What was trained is in the ordinary model, whose file simulates the same again.
    save_model(twin.model, tmp_path / "tuned.keras")
    again = load_model(tmp_path / "tuned.keras")
    trained = np.asarray(twin.model(x, training=False))
    assert np.abs(trained - plain).max() > 1e-3 * np.abs(plain).max()
    np.testing.assert_allclose(np.asarray(again(x, training=False)), trained, rtol=1e-5, atol=1e-5)
    other = Simulation(fold(again))
    assert (other.observe(images).keys(), other.layers) == (
        twin.observe(images).keys(),
        twin.layers,
    )
    size = np.abs(trained).max()
    np.testing.assert_allclose(
        np.asarray(other.net(x, training=False)),
        np.asarray(twin.net(x, training=False)),
        atol=0.05 * size,
    )
