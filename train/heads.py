"""What Keras models from elsewhere end in, brought to what ours do: one tensor of logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.errors import ModelError
from bloodedge.train.noise import noise

_PACKED = (list, tuple, dict)
# How many images a model is asked about, and the least probability.
_IMAGES, _LEAST = 4, 1e-30
# Functions whose values lie in 0..1.
_SQUASHING = ("sigmoid", "hard_sigmoid", "hardsigmoid", "softmax")


def with_logits(model: Any, path: Path) -> Any:
    """Return a classifier with one plain tensor in and its logits, instead of probabilities, out.

    Who uses a model takes the softmax of its answers, and a teacher's are compared as logits. A
    second softmax would let no class have more than `e / (e + classes - 1)`, so that a last one is
    left out; so are lists and dictionaries around a single input and output.

    Args:
        model: a Keras model; a layer of it may be changed. One that is no graph, or has several
            inputs or outputs, is returned as it is.
        path: its file, for the message.

    Raises:
        ModelError: it ends in a sigmoid, which says whether, not which.
    """
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        return model
    import keras

    image, answers = model.inputs[0], _logits(model.outputs[0], path)
    # A sequence never packs its tensors, and does not always tell what they are.
    packed = not isinstance(model, keras.Sequential) and any(
        isinstance(side, _PACKED) for side in (model.input, model.output)
    )
    if answers is model.outputs[0] and not packed:
        return model
    return keras.Model(image, answers, name=model.name)


def with_logs(model: Any, path: Path) -> Any:
    """Return a classifier with its answers' logarithms out where they prove to be probabilities.

    The mean of several nets' probabilities is an example. Their softmax is what they were.

    Args:
        model: a Keras model, asked about a few images of noise; one with other than square RGB
            images in, or several outputs, is returned as it is.
        path: its file, for the message.

    Raises:
        ModelError: its answers are those of a sigmoid, or of a softmax, reshaped or combined, and
            do not sum to 1.
    """
    import keras

    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or len(model.outputs) != 1:
        return model
    answers = model.outputs[0]
    if answers.dtype != "float32":
        # In half precision the least probability is 0, and its logarithm infinite.
        answers = keras.ops.cast(answers, "float32")
    asked = model(noise(shape, _IMAGES), training=False)
    p = keras.ops.convert_to_numpy(keras.ops.cast(asked, "float32"))
    if p.ndim != 2 or p.min() < 0:
        return model
    if np.abs(p.sum(axis=1) - 1).max() <= 1e-3:
        logs = keras.ops.log(keras.ops.maximum(answers, _LEAST))
        return keras.Model(model.inputs[0], logs, name=model.name)
    # Logits of a few images may lie there by chance.
    if p.max() <= 1 and _squashed(model.outputs[0]):
        raise ModelError(
            f"{path} answers between 0 and 1 for each class, and the answers do not sum to 1",
            expected="logits or a softmax, where one class excludes the others",
            fix="train it with a softmax, not a sigmoid, as the last layer",
        )
    return model


def _squashed(answers: Any) -> bool:
    """Return whether answers come of a sigmoid or softmax with no weights behind it."""
    waiting, seen = [answers], set()
    while waiting:
        tensor = waiting.pop()
        operation, place, _ = tensor._keras_history
        if _function(operation) in _SQUASHING:
            return True
        if id(tensor) not in seen and not getattr(operation, "weights", ()):
            waiting += operation._inbound_nodes[place].input_tensors
        seen.add(id(tensor))
    return False


def _logits(answers: Any, path: Path) -> Any:
    """Return the tensor whose softmax a last operation takes; other answers as they are."""
    import keras

    last, place, _ = answers._keras_history
    if isinstance(last, keras.Model):
        inner = with_logits(last, path)
        return answers if inner is last else inner(_before(last, place))
    kind = _function(last)
    if kind == "sigmoid":
        raise ModelError(
            f"{path} ends in a sigmoid, which answers for each class alone",
            expected="logits or a softmax, where one class excludes the others",
            fix="train it with a softmax",
        )
    if kind != "softmax":
        return answers
    if isinstance(last, keras.layers.Layer) and last.weights:
        last.activation = keras.activations.linear
        return answers
    return _before(last, place)


def _function(last: Any) -> str:
    """Return the name of the function that an operation applies, or applies last."""
    activation = getattr(last, "activation", None)
    return str(getattr(activation, "__name__", type(last).__name__)).lower()


def _before(operation: Any, place: int) -> Any:
    """Return what an operation was given when it was called for the `place`-th time."""
    return operation._inbound_nodes[place].input_tensors[0]
