"""One Keras 3 layer or operation as a layer of tf_keras."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from bloodedge.compress.bridge.runtime import tf_keras
from bloodedge.errors import ModelError

# Functions of the same name that compute the same in both.
_SAME_ACTIVATIONS = frozenset(
    ("linear", "relu", "relu6", "sigmoid", "softmax", "tanh", "gelu", "elu", "selu", "softplus")
)


def twin_layer(operation: Any) -> Any:
    """Return the tf_keras counterpart of a Keras 3 layer or operation, without its weights.

    A layer is rebuilt from its own configuration. Fields that tf_keras does not know are left
    out: the comparison of the whole models tells whether that changed anything. Operations of
    `keras.ops` are called as they are, which works because both compute with TensorFlow.

    Raises:
        ModelError: there is no counterpart.
    """
    import keras

    if not isinstance(operation, keras.layers.Layer):
        return _classes()["Operation"](operation, name=operation.name)
    if isinstance(operation, keras.Model):
        raise _unsupported(operation, "a model without models inside it")
    if isinstance(operation, keras.layers.Dropout):
        return _dropout(operation)
    kind = type(operation)
    counterpart = getattr(tf_keras().layers, kind.__name__, None)
    if counterpart is None or not kind.__module__.startswith("keras."):
        raise _unsupported(operation, "layers that Keras 2 has, too, and keras.ops operations")
    return counterpart(**_arguments(operation, counterpart))


def _unsupported(operation: Any, expected: str) -> ModelError:
    return ModelError(
        f"the layer {operation.name} ({type(operation).__name__}) has no twin in Keras 2",
        expected=expected,
        fix="teach compress/bridge/layers.py to make one",
    )


def _arguments(layer: Any, counterpart: Any) -> dict[str, Any]:
    known = _parameters(counterpart)
    config = {key: value for key, value in layer.get_config().items() if key in known}
    return {
        key: _value(key, value, layer)
        for key, value in config.items()
        # The weights are set afterwards.
        if not key.endswith("_initializer")
    }


@cache
def _parameters(counterpart: Any) -> set[str]:
    """Return what the constructors of a class and of its parents take."""
    found = {"name", "trainable"}
    for parent in counterpart.__mro__[:-1]:
        found |= set(inspect.signature(parent.__init__).parameters)
    return found - {"self", "args", "kwargs", "dtype"}


def _value(key: str, value: Any, layer: Any) -> Any:
    if key.endswith("_constraint") and value is not None:
        raise _unsupported(layer, "weights without constraints")
    if key.endswith("_regularizer") and value is not None:
        return {"class_name": value["class_name"], "config": value["config"]}
    if key == "activation" and value not in _SAME_ACTIVATIONS:
        # Keras 2's hard sigmoid, for one, has another slope.
        return layer.activation
    return value


def _dropout(layer: Any) -> Any:
    if layer.noise_shape is not None:
        raise _unsupported(layer, "dropout without a noise shape")
    return _classes()["Dropout"](layer.rate, layer.seed, name=layer.name)


@cache
def _classes() -> dict[str, Any]:
    """Return our two classes of tf_keras layers, made when tf_keras is first needed."""
    import tensorflow as tf

    layers = tf_keras().layers

    class Operation(layers.Layer):  # type: ignore[misc,name-defined]
        """Calls a stateless Keras 3 operation."""

        def __init__(self, operation: Any, **options: Any) -> None:
            super().__init__(**options)
            self._operation = operation

        def call(self, *args: Any, **kwargs: Any) -> Any:
            # tf_keras hands `training` to every layer that takes keywords.
            kwargs.pop("training", None)
            return self._operation.call(*args, **kwargs)

    class Dropout(layers.Layer):  # type: ignore[misc,name-defined]
        """Dropout whose random state is a weight, so that a checkpoint holds it."""

        def __init__(self, rate: float, seed: int | None, **options: Any) -> None:
            super().__init__(**options)
            self.rate = rate
            self.seed = seed or 0

        def build(self, shape: Any) -> None:
            self.draws = self.add_weight(
                "draws", shape=(), dtype=tf.int64, initializer="zeros", trainable=False
            )
            super().build(shape)

        def call(self, x: Any, training: bool = False) -> Any:
            if not training or self.rate == 0:
                return x
            draw = self.draws.assign_add(1)
            seed = tf.stack([tf.constant(self.seed, tf.int64), draw])
            return tf.nn.experimental.stateless_dropout(x, self.rate, seed=seed)

    return {"Operation": Operation, "Dropout": Dropout}
