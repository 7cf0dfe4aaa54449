"""Folding batch norm changes nothing but the graph, for every registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.fold import fold
from bloodedge.compress.graph import Graph
from bloodedge.errors import ModelError
from bloodedge.train.modelio import load_model, save_model
from bloodedge.train.registry import ModelConfig, build, models

LARGE = ("resnet50", "inception_v3")


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def with_statistics(model: Any) -> Any:
    """Give every batch norm statistics and factors that fresh ones do not have."""
    import keras

    rng = np.random.default_rng(0)
    spans = {"gamma": (0.5, 1.5), "moving_variance": (0.5, 2.0)}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            low_high = [spans.get(w.name, (-0.3, 0.3)) for w in layer.weights]
            shapes = [w.shape for w in layer.weights]
            layer.set_weights([rng.uniform(*s, n) for s, n in zip(low_high, shapes, strict=True)])
    return model


def small(name: str) -> Any:
    entry = models()[name]
    size = max(32, -(-entry.min_size // 16) * 16)
    return with_statistics(
        build(ModelConfig(name, 4, size, 0.1 if entry.scalable else 1), size=size)
    )


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in models()],
)
def test_folding_keeps_the_outputs(name: str):
    import keras

    model = small(name)
    folded = fold(model)
    images = np.random.default_rng(1).integers(0, 256, (4, *model.input_shape[1:])).astype("f4")
    before, after = (np.asarray(m.predict_on_batch(images)) for m in (model, folded.model))
    np.testing.assert_allclose(after, before, atol=1e-4 * max(1, np.abs(before).max()))
    assert before.std(axis=0).max() > 0
    norms = [n for n in folded.model.layers if isinstance(n, keras.layers.BatchNormalization)]
    assert len(norms) == 0 if name != "resnet50" else len(norms) <= 1
    assert all(
        keras.activations.serialize(layer.activation) == "linear"
        for layer in folded.model.layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    )


def test_the_folded_model_is_saved_and_loaded_without_custom_code(tmp_path: Path):
    model = fold(small("cnn_se")).model
    save_model(model, tmp_path / "folded.keras")
    again = load_model(tmp_path / "folded.keras")
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype("f4")
    np.testing.assert_array_equal(model.predict_on_batch(images), again.predict_on_batch(images))


def test_the_gain_is_what_the_kernel_was_multiplied_with():
    model = small("cnn_se")
    folded = fold(model)
    gamma, _, _, variance = model.get_layer("conv1_bn").get_weights()
    expected = gamma / np.sqrt(variance + model.get_layer("conv1_bn").epsilon)
    np.testing.assert_allclose(folded.gains["conv1"], expected, rtol=1e-6)
    kernels = [m.get_layer("conv1").get_weights()[0] for m in (model, folded.model)]
    np.testing.assert_allclose(kernels[1], kernels[0] * expected, rtol=1e-5)


def test_a_batch_norm_stays_where_it_cannot_be_folded():
    import keras

    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = keras.layers.BatchNormalization(name="after_relu")(x)
    y = keras.layers.Conv2D(4, 3, name="shared")(x)
    z = keras.layers.BatchNormalization(name="beside")(y)
    x = keras.layers.Flatten()(keras.layers.Add()([y, z]))
    model = with_statistics(keras.Model(image, keras.layers.Dense(2)(x)))
    folded = fold(model)
    assert folded.gains == {}
    names = {layer.name for layer in folded.model.layers}
    assert {"after_relu", "beside", "conv_relu"} <= names
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("f4")
    np.testing.assert_allclose(
        folded.model.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5
    )


def test_a_batch_norm_over_another_axis_stays():
    import keras

    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(4, 1, name="conv")(image)
    x = keras.layers.BatchNormalization(axis=1, name="rows")(x)
    model = with_statistics(keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x))))
    folded = fold(model)
    assert folded.gains == {}
    images = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype("f4")
    np.testing.assert_allclose(
        folded.model.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5
    )


def test_a_sequential_model_folds_too_and_other_graphs_are_refused():
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.DepthwiseConv2D(3, use_bias=False, depth_multiplier=2),
         layers.BatchNormalization(), layers.Flatten(), layers.Dense(2)]
    )  # fmt: skip
    folded = fold(with_statistics(model))
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("f4")
    np.testing.assert_allclose(
        folded.model.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5
    )
    assert len(folded.gains) == 1
    image = keras.Input((8, 8, 3))
    twice = layers.Conv2D(3, 1, name="twice")
    with pytest.raises(ModelError, match=r"twice of .* is called twice.*layers alone"):
        Graph(keras.Model(image, twice(twice(image))))
    with pytest.raises(ModelError, match="is a model itself"):
        Graph(keras.Model(image, model(image)))
