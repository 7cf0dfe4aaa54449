"""A Keras 3 model as the same model of tf_keras, and its weights back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.bridge.layers import twin_layer
from bloodedge.compress.bridge.runtime import check_backend, tf_keras
from bloodedge.compress.walk import calls, graph_of
from bloodedge.errors import ModelError
from bloodedge.train.noise import noise

# Rounding piles up over the layers of a deep net; a layer that differs in kind is off by far more.
TOLERANCE = 1e-4
_IMAGES = 2


def make_twin(model: Any) -> Any:
    """Return a tf_keras model with the same layers, names, weights and outputs.

    The graph is walked in order and every layer made anew. The outputs of both are compared on
    noise: they must agree to `TOLERANCE`, relative to the largest where that exceeds 1.

    Args:
        model: a functional or sequential Keras 3 model with one input and one output.

    Raises:
        ConfigError: Keras runs on another backend than TensorFlow.
        ModelError: a layer has no counterpart, or the twin computes something else.
    """
    check_backend()
    graph = graph_of(model)
    tensors = _walk(graph)
    source, target = graph.inputs[0], graph.outputs[0]
    twin = tf_keras().Model(tensors[id(source)], tensors[id(target)], name=model.name)
    for layer, counterpart in _pairs(model, twin):
        counterpart.set_weights(layer.get_weights())
    _compare(graph, twin, tensors)
    return twin


def copy_weights_back(twin: Any, model: Any) -> None:
    """Give a Keras 3 model the weights of its twin, matched by the layers' names.

    Args:
        twin: the twin, without wrappers.
        model: what it was made from, or a model like that; it is changed.

    Raises:
        ModelError: the two compute different outputs afterwards.
    """
    for layer, counterpart in _pairs(model, twin):
        layer.set_weights(counterpart.get_weights())
    images = noise(model.input_shape, _IMAGES)
    if not _agree(_run(model, images), _run(twin, images)):
        raise ModelError(f"the weights of {twin.name} did not come back from its twin in Keras 2")


def _walk(graph: Any) -> dict[int, Any]:
    """Call the twin of every layer in order; return tf_keras tensors by Keras 3 tensor."""
    image = graph.inputs[0]
    start = tf_keras().Input(batch_shape=image.shape, dtype=image.dtype, name=image.name)
    tensors = {id(image): start}
    made: dict[int, Any] = {}
    for node in calls(graph):
        key = id(node.operation)
        if key not in made:
            made[key] = twin_layer(node.operation)
        args, kwargs = node.arguments.fill_in(tensors)
        found = made[key](*args, **_given(node.operation, kwargs))
        outputs = found if isinstance(found, (list, tuple)) else [found]
        tensors |= {id(old): new for old, new in zip(node.outputs, outputs, strict=True)}
    return tensors


def _given(operation: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords that say something.

    Keras 3 records defaults, too; `training=False`, dropout's, would hold for ever in Keras 2.
    """
    defaults = inspect.signature(operation.call).parameters
    return {k: v for k, v in kwargs.items() if k not in defaults or defaults[k].default is not v}


def _pairs(model: Any, twin: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every Keras 3 layer that has weights, and its twin."""
    for layer in model.layers:
        if layer.weights:
            yield layer, twin.get_layer(layer.name)


def _compare(graph: Any, twin: Any, tensors: dict[int, Any]) -> None:
    """Refuse a twin whose output differs, and name the first layer that does."""
    images = noise(graph.inputs[0].shape, _IMAGES)
    if _agree(_run(graph, images), _run(twin, images)):
        return
    import keras

    for node in calls(graph):
        operation, output = node.operation, node.outputs[0]
        upto = keras.Model(graph.inputs[0], output)
        upto_twin = tf_keras().Model(twin.input, tensors[id(output)])
        if not _agree(_run(upto, images), _run(upto_twin, images)):
            raise ModelError(
                f"the layer {operation.name} ({type(operation).__name__}) computes something else "
                f"in Keras 2",
                expected=f"outputs that agree to {TOLERANCE:g}",
                fix="teach compress/bridge/layers.py what it needs",
            )
    raise ModelError(f"the twin of {twin.name} computes something else in Keras 2")


def _run(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a model of either Keras; on the CPU, as accelerators round to fewer digits."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return np.asarray(model(tf.constant(images), training=False))


def _agree(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    largest = max(1.0, float(np.abs(first).max(initial=0)))
    return bool(np.allclose(first, second, rtol=0, atol=TOLERANCE * largest))
