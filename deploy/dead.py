"""Units that never fire, made harmless for quantization.

A squeeze-and-excitation block can die in training: its hidden ReLU answers 0 to every image. The
converter then gives that tensor a scale of 1e-8, which XNNPACK refuses to load, and the biases
behind it no longer fit their integers. The layer is constant, so it can as well answer 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import say

_BATCH = 16


def without_dead_layers(model: Any, images: NDArray[np.uint8]) -> Any:
    """Return the model with layers that are 0 for all images answering 1, and what follows mended.

    The result computes the same for every image for which those layers are 0. Looked at are
    convolutions and dense layers with ReLU that only 1x1 convolutions or dense layers with a bias
    read: elsewhere a dead layer leaves a net that tells nothing apart.

    Args:
        model: a functional Keras model; it is not altered.
        images: `(N, S, S, 3)` uint8, such as calibration images.
    """
    import keras

    candidates = {layer: readers for layer in model.layers if (readers := _readers(layer, model))}
    dead = _dead(model, list(candidates), images)
    if not dead:
        return model
    say(f"answers 0 to every calibration image: {', '.join(layer.name for layer in dead)}")
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    for layer in dead:
        kernel, bias = layer.get_weights()
        twin.get_layer(layer.name).set_weights([np.zeros_like(kernel), np.ones_like(bias)])
        for reader in candidates[layer]:
            mended = twin.get_layer(reader.name)
            kernel, bias = mended.get_weights()
            ones = kernel.sum(axis=tuple(range(kernel.ndim - 1)))
            mended.set_weights([kernel, bias - ones])
    return twin


def _dead(model: Any, layers: list[Any], images: NDArray[np.uint8]) -> list[Any]:
    import keras

    if not layers:
        return []
    probe = keras.Model(model.input, [layer.output for layer in layers])
    highest = np.zeros(len(layers))
    for start in range(0, len(images), _BATCH):
        outputs = probe.predict_on_batch(images[start : start + _BATCH].astype(np.float32))
        answers = outputs if isinstance(outputs, list) else [outputs]
        highest = np.maximum(highest, [float(np.max(answer)) for answer in answers])
    return [layer for layer, most in zip(layers, highest, strict=True) if most == 0]


def _readers(layer: Any, model: Any) -> list[Any]:
    """Return the layers that read a ReLU layer's output, empty unless all can be mended."""
    import keras

    weighted = (keras.layers.Conv2D, keras.layers.Dense)
    if not isinstance(layer, weighted) or layer.activation is not keras.activations.relu:
        return []
    # Keras has no public way from a layer to its readers.
    readers = [
        node.operation
        for operation in model.operations
        for node in operation._inbound_nodes
        if any(tensor is layer.output for tensor in node.input_tensors)
    ]
    fits = all(isinstance(r, weighted) and r.use_bias and _is_pointwise(r) for r in readers)
    return readers if fits and layer.use_bias else []


def _is_pointwise(layer: Any) -> bool:
    return getattr(layer, "kernel_size", (1, 1)) == (1, 1)
