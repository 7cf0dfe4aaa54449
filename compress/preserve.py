"""Fine-tuning that keeps what pruning and clustering made: zeros, and few values per kernel.

Each is a Keras constraint, applied after every step: exact at any moment, on every backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.fold import Folded
from bloodedge.compress.rounding import kernels_of
from bloodedge.errors import ConfigError

PRESERVE = ("auto", "none", "sparsity", "clusters")
# A trained kernel has no exact zeros, and as many values as weights.
_MOST_CLUSTERS = 256
_LEAST_REPEATS = 2


def preserve(folded: Folded, what: str) -> dict[str, str]:
    """Constrain the kernels of a model to keep their zeros or clusters.

    Clusters are those of the kernel before batch norm was folded into it: what the folding made
    of a value, its product with the channel's factor, keeps belonging to the same cluster. On
    int8 the factor goes into the channel's scale.

    Args:
        folded: the model; its kernels get constraints.
        what: `sparsity` or `clusters`; `auto` for what each kernel has, `none` for nothing.

    Returns:
        What is kept, by layer.

    Raises:
        ConfigError: another word, or the model has nothing of the kind.
    """
    if what not in PRESERVE:
        raise ConfigError(f"--preserve {what!r}", expected=", ".join(PRESERVE))
    kept: dict[str, str] = {}
    if what == "none":
        return kept
    for name, variable, constraint, found in _found(folded, what):
        variable.constraint = constraint
        variable.assign(constraint(variable))
        kept[name] = found
    if not kept and what != "auto":
        wanted, other = ("pruned", "clusters") if what == "sparsity" else ("clustered", "sparsity")
        raise ConfigError(
            f"--preserve {what}: the model has none",
            expected=f"a {wanted} model",
            fix=f"--preserve {other} or auto" if any(_found(folded, other)) else "--preserve auto",
        )
    return kept


def _found(folded: Folded, what: str) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield each layer's name and kernel that has something to keep, how, and what in words."""
    for layer in folded.model.layers:
        for place in kernels_of(layer):
            kernel = np.asarray(layer.get_weights()[place], np.float32)
            gain = _spread(folded.gains.get(layer.name), kernel)
            constraint, found = _constraint(kernel, gain, what)
            if found:
                yield layer.name, layer.trainable_variables[place], constraint, found


def keeper(kernel: NDArray[np.float32]) -> tuple[Any, str]:
    """Return a constraint that keeps a kernel's zeros or clusters, and what it keeps in words.

    Both are empty for a kernel that has neither.
    """
    return _constraint(kernel, np.ones([1] * kernel.ndim, np.float32), "auto")


def _spread(gain: NDArray[np.float32] | None, kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the factors of the output channels in a shape that broadcasts to the kernel's."""
    if gain is None:
        return np.ones([1] * kernel.ndim, np.float32)
    trailing = kernel.shape[2:] if kernel.shape[-1] != gain.size else kernel.shape[-1:]
    return gain.reshape(trailing)


def can_share(weights: int, values: int) -> bool:
    """Whether so many weights share so many values: each has two on average, or more.

    With fewer, sharing saves nothing, and could not be told from weights that happen to be equal.
    """
    return weights >= _LEAST_REPEATS * values


def clusters_of(
    kernel: NDArray[np.float32], gain: NDArray[np.float32]
) -> tuple[NDArray[np.int64], int] | None:
    """Return each weight's cluster and how many there are; None for a kernel without clusters.

    Args:
        kernel: the folded kernel, of any shape, which is also that of what is returned.
        gain: what batch norm multiplied it with; it broadcasts to the kernel.
    """
    if not np.all(gain):
        return None
    values = np.unique(kernel / gain)
    # Multiplying and dividing leaves noise of a few units in the last place.
    apart = np.diff(values) > 4e-7 * np.maximum(np.abs(values[1:]), np.abs(values[:-1]))
    first = np.concatenate([[True], apart])
    count = int(first.sum())
    # The zeros of a pruned kernel are one value, and say nothing of how often others repeat.
    others, alive = int(np.count_nonzero(values[first])), int(np.count_nonzero(kernel))
    if count > _MOST_CLUSTERS or not can_share(alive, others):
        return None
    cluster = (np.cumsum(first) - 1)[np.searchsorted(values, kernel / gain)]
    return cluster.astype(np.int64), count


def _constraint(
    kernel: NDArray[np.float32], gain: NDArray[np.float32], what: str
) -> tuple[Any, str]:
    keep_zeros, keep_clusters = constraints()
    clusters = clusters_of(kernel, gain) if what != "sparsity" else None
    if clusters is not None:
        place, count = clusters
        return keep_clusters(kernel, place, count, gain), f"{count} clusters"
    zeros = int((kernel == 0).sum())
    if zeros and what != "clusters":
        return keep_zeros(kernel != 0), f"{zeros} of {kernel.size} weights zero"
    return None, ""


@cache
def constraints() -> tuple[Any, Any]:
    """Return the classes `KeepZeros` and `KeepClusters`; Keras is imported only here."""
    import keras
    from keras import ops

    class KeepZeros(keras.constraints.Constraint):  # type: ignore[misc]
        """Sets the weights outside a mask to zero."""

        def __init__(self, mask: NDArray[np.bool_]) -> None:
            self.mask = mask

        def __call__(self, w: Any) -> Any:
            # Optimizers hand over the variable itself, which JAX does not compute with.
            w = ops.convert_to_tensor(w)
            return ops.where(self.mask, w, 0.0)

    class KeepClusters(keras.constraints.Constraint):  # type: ignore[misc]
        """Projects a kernel onto those with one value a cluster, times the channel's factor.

        The least-squares value is `c_k = sum(w g) / sum(g^2)` over the cluster; a cluster of
        zeros stays zero.
        """

        def __init__(
            self,
            kernel: NDArray[np.float32],
            place: NDArray[np.int64],
            count: int,
            gain: NDArray[np.float32],
        ) -> None:
            self.place = place.ravel().astype(np.int32)
            self.count = count
            self.gain = np.broadcast_to(gain, kernel.shape).ravel()
            norm = np.bincount(self.place, self.gain.astype(np.float64) ** 2, count)
            alive = np.bincount(self.place, kernel.ravel() != 0, count) > 0
            self.scale = np.where(alive, 1 / np.maximum(norm, 1e-30), 0.0).astype(np.float32)

        def __call__(self, w: Any) -> Any:
            w = ops.convert_to_tensor(w)
            sums = ops.segment_sum(ops.reshape(w, (-1,)) * self.gain, self.place, self.count)
            values = ops.take(sums * self.scale, self.place) * self.gain
            return ops.reshape(values, w.shape)

    return KeepZeros, KeepClusters
