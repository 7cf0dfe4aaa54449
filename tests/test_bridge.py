"""A Keras 3 model and its twin in Keras 2: the same outputs, and the weights back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.bridge import layers
from bloodedge.compress.bridge.net import as_net, twin_in
from bloodedge.compress.bridge.runtime import tfmot
from bloodedge.compress.bridge.twin import TOLERANCE, copy_weights_back, make_twin
from bloodedge.errors import ConfigError, ModelError
from bloodedge.train import device
from bloodedge.train.augment import NO_AUGMENTATION
from bloodedge.train.config import FitConfig
from bloodedge.train.learner import make_learner
from bloodedge.train.modelio import load_model
from bloodedge.train.registry import ModelConfig, build, models, spec

# Narrow versions: what is tested does not depend on the width, the time does.
WIDTHS = {
    "cnn_se": 0.25,
    "cnn_se_nano": 0.5,
    "cnn_se_pico": 0.5,
    "mobilenet_v3_small": 0.25,
    "vit_tiny": 0.125,
    "study_cnn_se": 0.5,
}
DEEP = {"vgg16", "resnet18", "resnet50", "inception_v3", "vit_tiny", "study_inception"}
DEEP |= {"study_resnet", "mobilenet_v3_small", "study_vgg16_cbam", "study_vgg16_se"}
DEEP |= {"study_vgg16", "study_vgg16_dropout", "mobilenet_v2_035"}
CASES = [(name, "") for name in models()]
CASES += [("cnn_se", "cbam"), ("study_cnn_bn", "cbam"), ("vgg16", "se")]


@pytest.fixture(autouse=True, scope="module")
def backend():
    use_backend()


def small(name: str, attention: str) -> Any:
    """A narrow model whose every weight is random, so that none can be mistaken for another."""
    entry = spec(name)
    width = WIDTHS.get(name, 0.1) if entry.scalable else 1.0
    model = build(ModelConfig(name, 8, entry.min_size, width, attention), size=entry.min_size)
    randomise(model)
    return model


def randomise(model: Any) -> None:
    """Change every weight, kernels in proportion: deep nets must not overflow."""
    rng = np.random.default_rng(1)
    weights = []
    for w in model.get_weights():
        change = 0.05 * rng.random(w.shape, np.float32)
        weights.append(w * (1 + change) if w.ndim > 1 else w + change)
    model.set_weights(weights)


def outputs(model: Any, seed: int = 5) -> np.ndarray:
    shape = (3, *model.input_shape[1:])
    images = np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32)
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize(
    ("name", "attention"),
    [pytest.param(*c, marks=pytest.mark.slow if c[0] in DEEP else ()) for c in CASES],
)
def test_a_twin_computes_the_same_and_gives_its_weights_back(name: str, attention: str):
    model = small(name, attention)
    twin = make_twin(model)
    expected = outputs(model)
    largest = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(outputs(twin), expected, rtol=0, atol=TOLERANCE * largest)
    for layer in twin.layers:
        layer.set_weights([w * 1.01 if w.dtype == np.float32 else w for w in layer.get_weights()])
    copy_weights_back(twin, model)
    assert np.abs(outputs(model) - expected).max() > TOLERANCE * largest
    np.testing.assert_allclose(outputs(twin), outputs(model), rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_penalties_count_once_a_step_however_a_batch_is_cut(
    parts: int, tiny_file: Path, monkeypatch
):
    monkeypatch.setattr(device, "_parts", parts)
    model = load_model(tiny_file)
    net = as_net(make_twin(model), model.count_params())
    config = FitConfig(epochs=1, batch=8, augment=NO_AUGMENTATION)
    learner = make_learner(net, config, 1, None, parts=parts)
    images = np.zeros((8, 16, 16, 3), np.uint8)
    learner({"images": images, "view": np.zeros(8, np.int32)}, training=True)
    (expected,) = model.losses
    assert float(sum(learner.losses)) == pytest.approx(float(expected), rel=1e-5)


def with_layer(layer: Any, inner: int = 4) -> Any:
    import keras

    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(inner, 3, name="conv")(image)
    return keras.Model(image, layer(x), name="odd")


def test_a_layer_that_computes_something_else_is_named(monkeypatch):
    import keras

    # Keras 2 has a hard sigmoid of another slope: taken by its name it would be wrong.
    model = with_layer(keras.layers.Activation("hard_sigmoid", name="squash"))
    np.testing.assert_allclose(outputs(make_twin(model)), outputs(model), atol=TOLERANCE)
    monkeypatch.setattr(layers, "_SAME_ACTIVATIONS", {"linear", "hard_sigmoid"})
    with pytest.raises(ModelError, match=r"squash \(Activation\) computes something else"):
        make_twin(model)


def test_layers_without_a_twin_are_named():
    import keras

    nested = keras.Sequential([keras.layers.Conv2D(2, 1)], name="inner")
    fixed = keras.layers.Dense(2, kernel_constraint="non_neg", name="bounded")
    noisy = keras.layers.Dropout(0.1, noise_shape=(None, 1, 1, 4), name="noisy")
    for layer, why in (
        (keras.layers.RMSNormalization(name="rms"), r"rms \(RMSNormalization\).*Keras 2 has"),
        (nested, r"inner \(Sequential\).*without models inside"),
        (fixed, r"bounded \(Dense\).*without constraints"),
        (noisy, r"noisy \(Dropout\).*without a noise shape"),
    ):
        with pytest.raises(ModelError, match=why):
            make_twin(with_layer(layer))


def test_a_model_that_is_no_single_graph_is_refused():
    import keras

    first, second = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([first, second], keras.layers.Add()([first, second]), name="two")
    with pytest.raises(ModelError, match="graph of two"):
        make_twin(model)


def test_weights_that_do_not_come_back_are_noticed():
    import keras

    model = with_layer(keras.layers.Dense(2, name="last"))
    twin = make_twin(model)
    changed = with_layer(keras.layers.Dense(2, activation="tanh", name="last"))
    with pytest.raises(ModelError, match="did not come back"):
        copy_weights_back(twin, changed)


def test_a_net_shares_its_variables_and_penalties_with_the_twin(tiny_file: Path):
    model = load_model(tiny_file)
    twin = make_twin(model)
    net = as_net(twin, 123)
    assert net.count_params() == 123
    assert twin_in(net) is twin
    images = np.zeros((2, 16, 16, 3), np.float32)
    net(images, training=True)
    model(images, training=True)
    assert float(sum(net.losses)) == pytest.approx(float(sum(model.losses)), rel=1e-6)
    assert float(sum(net.losses)) > 0
    net.set_weights([w + 1 for w in net.get_weights()])
    np.testing.assert_allclose(
        twin.get_layer("conv").get_weights()[0], model.get_layer("conv").get_weights()[0] + 1
    )
    trained = {v.name for v in net.trainable_variables}
    assert trained == {"kernel", "bias", "gamma", "beta"}


def test_dropout_repeats_its_draws_from_a_checkpoint():
    import keras

    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dropout(0.3, seed=7)])
    net = as_net(make_twin(model), 0)
    ones = np.ones((4, 1000), np.float32)
    state = net.get_weights()
    first, second = (np.asarray(net(ones, training=True)) for _ in range(2))
    assert np.any(first != second)
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.7], rtol=1e-6)
    # Four standard deviations of a binomial share.
    assert (first == 0).mean() == pytest.approx(0.3, abs=4 * (0.21 / 4000) ** 0.5)
    net.set_weights(state)
    np.testing.assert_array_equal(np.asarray(net(ones, training=True)), first)


def test_other_backends_and_a_missing_tfmot_are_refused(monkeypatch):
    import keras

    with monkeypatch.context() as patch:
        patch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(ConfigError, match=r"Keras runs on jax.*--backend tensorflow"):
            make_twin(None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install tensorflow-model-optimization"):
        tfmot()


@pytest.mark.slow
def test_keras_3_and_the_converter_work_after_tfmot_in_one_process(tiny_file: Path, tmp_path: Path):
    code = f"""
import os
from bloodedge.backend import use_backend
keras = use_backend()
from bloodedge.compress.bridge.runtime import tfmot
assert tfmot().__version__
import numpy as np, tensorflow as tf
assert tf.keras.version().startswith("3."), tf.keras.version()
assert "TF_USE_LEGACY_KERAS" not in os.environ
from pathlib import Path
from bloodedge.deploy.convert import convert
from bloodedge.deploy.interpreter import Classifier
from bloodedge.metrics import softmax
from bloodedge.train.loop import predict_logits
from bloodedge.train.modelio import load_model, save_model
model = load_model(Path({str(tiny_file)!r}))
save_model(model, Path({str(tmp_path)!r}) / "again.keras")
images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
path = Path({str(tmp_path)!r}) / "tiny.tflite"
path.write_bytes(convert(model, "int8", images))
path.write_bytes(convert(model, "float32", images))
expected = softmax(predict_logits(model, images))
np.testing.assert_allclose(Classifier(path).predict(images), expected, atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
