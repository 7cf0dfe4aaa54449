"""Batch norm's running statistics taken anew, for a net whose weights are no longer those of then.

Where channels were cut, or weights averaged, a layer sees other values than its statistics were
collected on. One pass over training images, without gradients, brings them up to date (Wu & Johnson
2021, "Rethinking 'Batch' in BatchNorm"; Li et al. 2020, "EagleEye").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import track

# As many as importance is measured on.
IMAGES = 1024
_BATCH = 128


def renorm(net: Any, images: NDArray[Any]) -> int:
    """Replace the running statistics of every batch norm by those over some images.

    Each batch is normalised by its own statistics, as in training. With means m and variances v
    of equal batches the new mean is `E[m]` and the new variance `E[v + m^2] - E[m]^2`, which is
    that of all images together. Works on every backend; weights that are trained stay as they are.

    Args:
        net: a Keras model; frozen batch norms are left alone.
        images: `(N, S, S, 3)` pixel values; the last ones that fill no batch are left out.

    Returns:
        How many layers were brought up to date.
    """
    norms = [layer for layer in net.layers if _is_batch_norm(layer) and layer.trainable]
    if not norms:
        return 0
    size = min(_BATCH, len(images))
    count = len(images) // size
    sums = [np.zeros((2, *layer.moving_mean.shape)) for layer in norms]
    with _as_in_training(net, norms):
        batches = (images[i * size : (i + 1) * size] for i in range(count))
        for batch in track(batches, "batch norm", count):
            for total, (mean, variance) in zip(sums, _of_batch(net, norms, batch), strict=True):
                total += [mean, variance + mean**2]
    for layer, total in zip(norms, sums, strict=True):
        mean, square = total / count
        layer.moving_mean.assign(mean.astype(np.float32))
        layer.moving_variance.assign(np.maximum(square - mean**2, 0.0).astype(np.float32))
    return len(norms)


def _is_batch_norm(layer: Any) -> bool:
    return type(layer).__name__ == "BatchNormalization"


@contextmanager
def _as_in_training(net: Any, norms: list[Any]) -> Iterator[None]:
    """Let batch norms keep the last batch's statistics alone, and nothing drop out."""
    momenta = [layer.momentum for layer in norms]
    dropping = [layer for layer in net.layers if hasattr(layer, "rate")]
    rates = [layer.rate for layer in dropping]
    try:
        for layer in norms:
            layer.momentum = 0.0
        for layer in dropping:
            layer.rate = 0.0
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
        for layer, rate in zip(dropping, rates, strict=True):
            layer.rate = rate


def _of_batch(
    net: Any, norms: list[Any], batch: NDArray[Any]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the means and variances that each batch norm sees in a batch."""
    import keras

    trained, kept = net.trainable_variables, net.non_trainable_variables
    _, seen = net.stateless_call(trained, kept, batch.astype(np.float32), training=True)
    place = {variable.path: i for i, variable in enumerate(kept)}
    for layer in norms:
        found = (seen[place[v.path]] for v in (layer.moving_mean, layer.moving_variance))
        mean, variance = (keras.ops.convert_to_numpy(v).astype(np.float64) for v in found)
        yield mean, variance
