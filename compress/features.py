"""The penultimate layer: what a classifier's last dense layer looks at."""

from __future__ import annotations

from typing import Any

from bloodedge.errors import ModelError


def with_features(net: Any) -> Any:
    """Return a model on the same weights: `(B, C + F)`, the logits, then what they are made of.

    Raises:
        ModelError: the last layer is not dense.
    """
    import keras

    rows = keras.layers.Concatenate(name="logits_and_features")([net.output, _penultimate(net)])
    return keras.Model(net.input, rows, name=f"{net.name}_with_features")


def _penultimate(net: Any) -> Any:
    import keras

    last = net.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise ModelError(
            f"{net.name} ends in {type(last).__name__}, so that it has no features to compare",
            expected="a dense layer that makes the logits",
            fix="choose another --method",
        )
    # Not its own input, which is that of its first call, maybe in another model.
    operation, node, _ = net.outputs[0]._keras_history
    return operation._inbound_nodes[node].input_tensors[0]
