"""What pruning and clustering did to the weights: figures by layer, and sizes for a download."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.choice import LayerChoice

COUNTED = (
    "all weights, biases and batch norm included: as float32; and with every kernel as int8 and a "
    "float32 scale per output channel"
)
NOTE = (
    "zeros and shared values shrink the download (gzip), not the file on the device and not the "
    "latency"
)


def layer_figures(model: Any, choices: Sequence[LayerChoice]) -> list[dict[str, Any]]:
    """Return, for each layer with a kernel, what was chosen and what its kernel holds.

    `weights` are the kernel's values, `sparsity` the share that is exactly zero, `values` how many
    distinct ones there are.
    """
    import keras

    rows = []
    for choice in choices:
        row = asdict(choice) | {"weights": 0, "sparsity": 0.0, "values": 0}
        if choice.shape:
            kernel = keras.ops.convert_to_numpy(model.get_layer(choice.name).kernel)
            row["weights"] = int(kernel.size)
            row["sparsity"] = float((kernel == 0).mean())
            row["values"] = len(np.unique(kernel))
        rows.append(row)
    return rows


def weight_sizes(model: Any) -> dict[str, dict[str, int]]:
    """Return the bytes of a model's weights, raw and gzipped; `COUNTED` says of what."""
    single, eight = [], []
    for layer in model.layers:
        for variable, weight in zip(layer.weights, layer.get_weights(), strict=True):
            single.append(weight.astype(np.float32).tobytes())
            # The first kernel of a separable convolution is one of its own.
            by_channel = "Depthwise" in type(layer).__name__ or "depthwise" in variable.name
            eight.append(_int8(weight, depthwise=by_channel))
    return {
        name: {"bytes": len(data), "gzip_bytes": len(zlib.compress(data, 9, 31))}
        for name, data in (("float32", b"".join(single)), ("int8", b"".join(eight)))
    }


def _int8(weight: NDArray[Any], *, depthwise: bool) -> bytes:
    """Return a kernel's scales and symmetric int8 values; vectors stay float32."""
    weight = weight.astype(np.float32)
    if weight.ndim < 2:
        return weight.tobytes()
    # Of a depthwise kernel, each of a channel's outputs has its own.
    outputs = 2 if depthwise else 1
    others = tuple(range(weight.ndim - outputs))
    scale = np.abs(weight).max(axis=others, keepdims=True) / np.float32(127)
    values = np.round(weight / np.where(scale > 0, scale, 1)).astype(np.int8)
    packed: bytes = scale.tobytes() + values.tobytes()
    return packed
