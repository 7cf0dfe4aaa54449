"""Models from elsewhere as one flat graph in float32, with names that TensorFlow takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodedge.backend import use_backend
from bloodedge.compress.channels.graph import trace
from bloodedge.compress.fold import fold
from bloodedge.deploy.convert import convert
from bloodedge.errors import ModelError
from bloodedge.references import find_model
from bloodedge.train.loop import predict_logits
from bloodedge.train.plain import plain
from bloodedge.train.restore import restore

use_backend()
import keras  # noqa: E402
from keras import layers  # noqa: E402

SIDE, CLASSES = 16, 3
PATH = Path("outside.keras")
HALVES = ("mixed_float16", "mixed_bfloat16", "float16")


@contextmanager
def policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def backbone(name: str = "inner") -> Any:
    """Return a functional net without a head, whose batch norm has statistics of its own."""
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Add(name="add")([x, layers.Conv2D(8, 1, name="side")(layers.ReLU()(x))])
    return drawn(keras.Model(image, layers.GlobalAveragePooling2D()(x), name=name))


def drawn(model: Any) -> Any:
    """Return a model with weights that are all drawn anew, none of them 0 or 1."""
    rng = np.random.default_rng(0)
    model.set_weights(
        [rng.uniform(0.1, 1, w.shape) - 0.3 * (w.ndim > 1) for w in model.get_weights()]
    )
    return model


def transfer(**called: Any) -> Any:
    image = keras.Input((SIDE, SIDE, 3))
    x = backbone()(layers.Rescaling(1 / 255)(image), **called)
    return drawn(keras.Model(image, layers.Dense(CLASSES, name="conv")(x), name="outer"))


def in_sequences() -> Any:
    inner = keras.Sequential([keras.Input((SIDE, SIDE, 3)), backbone(), layers.Dropout(0.5)])
    return keras.Sequential([layers.Rescaling(1 / 255), inner, layers.Dense(CLASSES)])


def built(model: Any) -> Any:
    model.build((None, SIDE, SIDE, 3))
    return drawn(model)


def shared() -> Any:
    image, inner = keras.Input((SIDE, SIDE, 3)), backbone()
    scaled = layers.Rescaling(1 / 255)(image)
    x = layers.Concatenate()([inner(scaled), inner(layers.Rescaling(-1.0)(scaled))])
    return drawn(keras.Model(image, layers.Dense(CLASSES)(x)))


NESTED: dict[str, Callable[[], Any]] = {
    "a net under a head": transfer,
    "a net that does not train": lambda: transfer(training=False),
    "sequences in a sequence": lambda: built(in_sequences()),
    "a net called twice": shared,
}


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def answers(model: Any) -> np.ndarray:
    return np.asarray(model(images().astype(np.float32), training=False), np.float32)


def names(model: Any) -> list[str]:
    return [operation.name for operation in model.operations]


@pytest.mark.parametrize("kind", NESTED)
def test_models_inside_a_model_are_opened(kind: str):
    model = NESTED[kind]()
    flat = plain(model, PATH)
    assert not any(isinstance(layer, keras.Model) for layer in flat.layers)
    assert len(names(flat)) == len(set(names(flat)))
    assert flat.count_params() == model.count_params()
    np.testing.assert_allclose(answers(flat), answers(model), atol=1e-5)


def test_a_layer_outside_keeps_its_name_and_one_inside_gets_that_of_its_model_too():
    flat = plain(transfer(), PATH)
    assert isinstance(flat.get_layer("conv"), layers.Dense)
    assert isinstance(flat.get_layer("inner_conv"), layers.Conv2D)
    assert isinstance(flat.get_layer("norm"), layers.BatchNormalization)


def test_what_was_said_of_training_when_a_model_was_called_holds_for_its_layers():
    for called in ({}, {"training": False}):
        (node,) = plain(transfer(**called), PATH).get_layer("norm")._inbound_nodes
        assert node.arguments.kwargs.get("training") is called.get("training")


def test_frozen_layers_stay_frozen():
    model = transfer()
    model.get_layer("inner").trainable = False
    flat = plain(model, PATH)
    assert not flat.get_layer("norm").trainable
    assert flat.get_layer("conv").trainable


def test_a_net_under_a_head_can_be_cut_and_folded(tmp_path: Path):
    path = tmp_path / "outside.keras"
    transfer().save(path)
    model = restore(find_model(str(path)))
    assert {group.name for group in trace(model).groups if not group.locked} == {"inner_conv"}
    assert set(fold(model).gains) == {"inner_conv"}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("kind", ["a net under a head", "sequences in a sequence"])
def test_half_precision_becomes_single_with_the_same_weights(half: str, kind: str):
    with policy(half):
        model = NESTED[kind]()
    made = plain(model, PATH)
    assert {layer.compute_dtype for layer in made.layers} == {"float32"}
    assert made.outputs[0].dtype == made.inputs[0].dtype == "float32"
    before = sorted((w.astype("f4") for w in model.get_weights()), key=lambda w: (w.shape, w.sum()))
    after = sorted(made.get_weights(), key=lambda w: (w.shape, w.sum()))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    np.testing.assert_allclose(answers(made), answers(model), rtol=0.05, atol=0.05)


def test_layers_inside_a_layer_and_casts_become_single_too():
    with policy("mixed_float16"):
        image = keras.Input((SIDE, SIDE, 3))
        x = layers.TimeDistributed(layers.Dense(4))(layers.Reshape((SIDE, SIDE * 3))(image))
        x = keras.ops.cast(layers.Flatten()(x), "float16") * 0.5
        model = drawn(keras.Model(image, layers.Dense(CLASSES)(x)))
    made = plain(model, PATH)
    assert made.get_layer(index=2).layer.compute_dtype == "float32"
    kinds = {t.dtype for op in made.operations for node in op._inbound_nodes for t in node.outputs}
    assert kinds == {"float32"}


def test_a_normalization_keeps_what_it_has_learnt():
    image = keras.Input((SIDE, SIDE, 3))
    norm = layers.Normalization(axis=-1)
    norm.adapt(images().astype(np.float32))
    x = layers.Dense(CLASSES)(layers.Flatten()(norm(image)))
    model = keras.Model(image, x, name="a net")
    made = plain(model, PATH)
    assert made is not model
    np.testing.assert_allclose(answers(made), answers(model), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_computed_in_half_precision_is_exported(tmp_path: Path):
    with policy("mixed_float16"):
        model = transfer()
    path = tmp_path / "outside.keras"
    model.save(path)
    assert convert(restore(find_model(str(path))), "float32", images())


def test_half_precision_that_cannot_be_made_single_is_named():
    with policy("mixed_bfloat16"):
        model = transfer()
    # Its policy, int8 from bfloat16, is none of another float.
    model.get_layer("conv").quantize("int8")
    with pytest.raises(ModelError, match=r"outside\.keras computes in bfloat16, .* save it again"):
        plain(model, PATH)


@pytest.mark.parametrize("name", ["a b c", "größe", "_hidden", "-"])
def test_names_that_tensorflow_refuses_are_cleaned(name: str, tmp_path: Path):
    model = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), layers.Flatten(), layers.Dense(CLASSES, name="a layer")],
        name=name,
    )
    path = tmp_path / "outside.keras"
    model.save(path)
    made = restore(find_model(str(path)))
    assert "a_layer" in names(made)
    np.testing.assert_allclose(predict_logits(made, images()), answers(model), rtol=1e-4)


def test_a_plain_model_is_left_alone():
    for model in (backbone(), built(keras.Sequential([layers.Flatten(), layers.Dense(CLASSES)]))):
        assert plain(model, PATH) is model


def test_what_cannot_be_opened_is_left_alone():
    one, two = keras.Input((4,)), keras.Input((4,))
    several = keras.Model([one, two], layers.Add()([one, two]), name="two inputs")
    assert plain(several, PATH) is several
    image = keras.Input((SIDE, SIDE, 3))
    # Its answers differ from call to call, so that nothing shows that a copy gives the same.
    noisy = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Dropout(0.5), layers.Flatten()])
    random = keras.Model(image, layers.Dense(CLASSES)(noisy(image, training=True)))
    found = plain(random, PATH)
    assert found is random or not any(isinstance(x, keras.Model) for x in found.layers)
