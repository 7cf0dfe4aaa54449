"""Batch norm folded into the layers before it, as every inference runtime does.

`gamma (W x + b - mean) / sqrt(var + eps) + beta` is again a layer of the same kind, with the
kernel `W g` and the bias `(b - mean) g + beta`, where `g = gamma / sqrt(var + eps)` acts on output
channels (Jacob et al. 2018, section 3.2). What comes out is an ordinary Keras model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.graph import Call, Graph, without_idle_padding

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Folded:
    """A model in the form in which it will run.

    Attributes:
        model: the same function as an ordinary Keras model: batch norm folded where it follows a
            convolution or dense layer, activations of those layers as layers of their own, and
            `same` padding that pads nothing written `valid`.
        gains: by layer, the `(C,)` factors of its output channels that came from batch norm.
    """

    model: Any
    gains: dict[str, Array]


def fold(model: Any) -> Folded:
    """Fold batch norm into the convolutions and dense layers it follows; others stay.

    Args:
        model: a functional or sequential Keras model.

    Raises:
        ModelError: its graph cannot be read.
    """
    graph = Graph(model)
    pairs = _pairs(graph)
    folded = _rebuild(graph, pairs)
    gains: dict[str, Array] = {}
    for call in graph.calls:
        layer = call.operation
        if not getattr(layer, "weights", []) or layer.name in {n.name for n in pairs.values()}:
            continue
        weights = layer.get_weights()
        if layer.name in pairs:
            weights, gains[layer.name] = _folded_weights(layer, pairs[layer.name])
        folded.get_layer(layer.name).set_weights(weights)
    return Folded(without_idle_padding(folded), gains)


def is_foldable(layer: Any) -> bool:
    """Whether a layer is linear in the way that takes up a factor on each output channel."""
    import keras

    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    # Subclasses may compute something else: Conv2DTranspose has its channels elsewhere.
    return type(layer) in kinds and getattr(layer, "data_format", None) != "channels_first"


def _pairs(graph: Graph) -> dict[str, Any]:
    """Return the batch norms to fold by the name of the layer before them."""
    import keras

    pairs = {}
    for call in graph.calls:
        norm = graph.sole_taker(call)
        if (
            norm
            and is_foldable(call.operation)
            and _activation(call.operation) == "linear"
            and type(norm.operation) is keras.layers.BatchNormalization
            and norm.operation.axis in (-1, len(call.output.shape) - 1)
        ):
            pairs[call.name] = norm.operation
    return pairs


def _rebuild(graph: Graph, pairs: dict[str, Any]) -> Any:
    """Return the graph without the folded batch norms and with activations split off."""
    import keras

    dropped = {norm.name for norm in pairs.values()}
    names = {call.name for call in graph.calls}
    split = {
        call.name: _activation(call.operation)
        for call in graph.calls
        if _is_weighted(call) and _activation(call.operation) != "linear"
    }

    def clone(operation: Any) -> Any:
        config = operation.get_config()
        if operation.name in pairs:
            config["use_bias"] = True
        if operation.name in split:
            config["activation"] = "linear"
        return type(operation).from_config(config)

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if operation.name in dropped:
            return args[0]
        output = operation(*args, **kwargs)
        if operation.name not in split:
            return output
        activation = split[operation.name]
        name = f"{operation.name}_{activation}"
        while name in names:
            name += "_"
        return keras.layers.Activation(activation, name=name)(output)

    return keras.models.clone_model(graph.model, clone_function=clone, call_function=call)


def _is_weighted(call: Call) -> bool:
    import keras

    layer = call.operation
    return is_foldable(layer) or type(layer) is keras.layers.EinsumDense


def _activation(layer: Any) -> str:
    """Return the name of a layer's activation, which Keras writes `linear` if there is none."""
    import keras

    activation = getattr(layer, "activation", None)
    return str(keras.activations.serialize(activation)) if activation else "linear"


def _folded_weights(layer: Any, norm: Any) -> tuple[list[Array], Array]:
    """Return kernel and bias with a batch norm in them, and the factors of the channels."""
    import keras

    def read(variable: Any, default: float) -> NDArray[np.float64]:
        if variable is None:
            return np.full(norm.moving_mean.shape, default)
        return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)

    kernel = np.asarray(layer.get_weights()[0], np.float64)
    gain = read(norm.gamma, 1.0) / np.sqrt(read(norm.moving_variance, 1.0) + norm.epsilon)
    bias = read(layer.bias, 0.0) if layer.use_bias else np.zeros_like(gain)
    shift = (bias - read(norm.moving_mean, 0.0)) * gain + read(norm.beta, 0.0)
    if type(layer) is keras.layers.DepthwiseConv2D:
        kernel = kernel * gain.reshape(kernel.shape[2:])
    else:
        kernel = kernel * gain
    return [kernel.astype(np.float32), shift.astype(np.float32)], gain.astype(np.float32)
