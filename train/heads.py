"""What Keras models from elsewhere end in, brought to what ours do: one tensor of logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bloodedge.errors import ModelError

_PACKED = (list, tuple, dict)


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
