from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.data.dataset import Dataset
from bloodedge.deploy.export import ExportConfig, export
from bloodedge.deploy.predict import open_model
from bloodedge.errors import ModelError
from bloodedge.references import find_model
from bloodedge.train.heads import with_logits, with_logs
from bloodedge.train.loop import predict_logits
from bloodedge.train.restore import restore

use_backend()
import keras  # noqa: E402
from keras import layers  # noqa: E402

SIDE, CLASSES = 16, 3
PATH = Path("outside.keras")


def body(head: Any) -> tuple[Any, Any]:
    """Return the input of a small net, and what its last layers make of it."""
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(x))
    return image, head(x)


def dense(activation: str | None = None) -> Any:
    return layers.Dense(CLASSES, activation)


def graph(head: Callable[[Any], Any], pack: Callable[[Any], Any] = lambda x: x) -> Any:
    image, answers = body(head)
    return keras.Model(pack(image), pack(answers))


HEADS: dict[str, Callable[[], Any]] = {
    "layer's activation": lambda: graph(layers.Dense(CLASSES, activation="softmax")),
    "activation layer": lambda: graph(lambda x: layers.Activation("softmax")(dense()(x))),
    "softmax layer": lambda: graph(lambda x: layers.Softmax()(layers.Dense(CLASSES)(x))),
    "operation": lambda: graph(lambda x: keras.ops.softmax(layers.Dense(CLASSES)(x))),
    "sequence": lambda: keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Flatten(), layers.Dense(CLASSES), layers.Softmax()]
    ),
    "model inside": lambda: keras.Sequential(
        [graph(lambda x: layers.Softmax()(layers.Dense(CLASSES)(x)))]
    ),
    "model inside, layer's activation": lambda: keras.Sequential(
        [graph(layers.Dense(CLASSES, activation="softmax"))]
    ),
    "dictionaries": lambda: graph(
        layers.Dense(CLASSES, activation="softmax"), lambda x: {"one": x}
    ),
    "lists": lambda: graph(lambda x: layers.Softmax()(layers.Dense(CLASSES)(x)), lambda x: [x]),
}


def images(count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def answers(model: Any) -> np.ndarray:
    """Return what a model itself answers, out of whatever it is packed in."""
    packed = not isinstance(model, keras.Sequential) and isinstance(model.input, dict)
    found = model.predict({"one": images()} if packed else images(), verbose=0)
    return next(iter(found.values())) if isinstance(found, dict) else np.asarray(found).squeeze()


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_of_a_model_from_elsewhere_stay_what_they_are(head: str, tmp_path: Path):
    model = HEADS[head]()
    expected = answers(model)
    assert expected.sum(axis=1) == pytest.approx(1, abs=1e-5)
    path = tmp_path / "outside.keras"
    model.save(path)
    found = open_model(find_model(str(path))).probabilities(images())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("combine", [layers.Average(), lambda both: both[0] * 0.5 + both[1] * 0.5])
def test_probabilities_that_no_softmax_gives_stay_what_they_are(combine: Any, tmp_path: Path):
    model = graph(lambda x: combine([dense("softmax")(x), dense("softmax")(x)]))
    path = tmp_path / "ensemble.keras"
    model.save(path)
    found = open_model(find_model(str(path))).probabilities(images())
    np.testing.assert_allclose(found, answers(model), atol=1e-5)


def test_one_score_is_no_classifier(tmp_path: Path):
    path = tmp_path / "one.keras"
    graph(layers.Dense(1)).save(path)
    with pytest.raises(ModelError, match=r"one\.keras maps .*, at least two"):
        open_model(find_model(str(path)))


@pytest.mark.parametrize("pack", [dict, list])
def test_one_tensor_in_a_container_is_taken_out(pack: type):
    model = graph(dense(), lambda x: {"one": x} if pack is dict else [x])
    found = predict_logits(with_logits(model, PATH), images())
    np.testing.assert_allclose(found, answers(model), atol=1e-6)


def test_logits_are_left_alone():
    model = graph(dense())
    assert with_logits(model, PATH) is model


@pytest.mark.parametrize("head", [dense("sigmoid"), lambda x: keras.ops.sigmoid(dense()(x))])
def test_a_sigmoid_is_refused(head: Callable[[Any], Any]):
    with pytest.raises(ModelError, match=r"outside\.keras ends in a sigmoid"):
        with_logits(graph(head), PATH)


def in_reshape(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: layers.Reshape((CLASSES,))(function(layers.Reshape((1, CLASSES))(dense()(x))))


BETWEEN: dict[str, Callable[[Any], Any]] = {
    "reshaped": in_reshape(layers.Activation("sigmoid")),
    "of a layer": in_reshape(layers.Dense(CLASSES, activation="sigmoid")),
    "averaged": lambda x: layers.Average()([dense("sigmoid")(x), dense("hard_sigmoid")(x)]),
    "a softmax halved": lambda x: layers.Rescaling(0.5)(dense("softmax")(x)),
}


@pytest.mark.parametrize("head", BETWEEN)
def test_answers_of_each_class_alone_are_refused_wherever_the_sigmoid_is(head: str, tmp_path: Path):
    path = tmp_path / "outside.keras"
    graph(BETWEEN[head]).save(path)
    with pytest.raises(ModelError, match=r"outside\.keras answers between 0 and 1 .* softmax, not"):
        restore(find_model(str(path)))


def test_logits_that_lie_between_0_and_1_by_chance_are_left_alone():
    small = keras.initializers.Constant(0.5)
    # A gate's sigmoid lies behind weights.
    image, x = body(lambda x: layers.Multiply()([x, layers.Dense(8, activation="sigmoid")(x)]))
    head = layers.Dense(CLASSES, kernel_initializer="zeros", bias_initializer=small)
    model = keras.Model(image, head(x))
    assert with_logs(model, PATH) is model


def test_no_probability_of_half_precision_has_an_infinite_logarithm():
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Dense(CLASSES, kernel_initializer="zeros")(layers.Flatten()(image))
    shifted = layers.Rescaling(1.0, offset=[0.0, 100.0, 0.0])(x)
    both = [layers.Softmax(dtype="float16")(shifted) for _ in range(2)]
    model = keras.Model(image, layers.Average(dtype="float16")(both))
    logits = predict_logits(with_logs(model, PATH), images())
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, [np.log([1e-30, 1, 1e-30])] * 6, rtol=1e-5)


def test_what_is_no_graph_or_has_several_outputs_is_left_to_its_user():
    image, first = body(dense())
    model = keras.Model(image, [first, dense()(first)])
    assert with_logits(model, PATH) is model

    class Subclassed(keras.Model):  # type: ignore[misc]
        pass

    assert isinstance(with_logits(Subclassed(), PATH), Subclassed)


def test_an_exported_softmax_is_taken_once(colours: Dataset, tmp_path: Path):
    model = HEADS["layer's activation"]()
    pixels = colours["val"].images
    expected = model.predict(pixels, verbose=0)
    path = tmp_path / "outside.keras"
    model.save(path)
    run = export(ExportConfig(str(path), "made", ("float32",)), colours)
    file = find_model(str(run.path / "outside-float32.tflite"))
    np.testing.assert_allclose(open_model(file).probabilities(pixels), expected, atol=1e-5)
