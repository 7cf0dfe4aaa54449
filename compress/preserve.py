"""Fine-tuning that keeps what pruning and clustering made: zeros, and few values per kernel.

Each is a Keras constraint, applied after every step: exact at any moment, on every backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.fold import Folded
from bloodedge.compress.rounding import kernels_of
from bloodedge.errors import ConfigError

PRESERVE = ("auto", "none", "sparsity", "clusters")
# A trained kernel has no exact zeros, and as many values as weights.
_MOST_CLUSTERS = 256
_LEAST_REPEATS = 2


class Clusters(NamedTuple):
    """Which weights of a kernel share a value.

    Attributes:
        place: each weight's cluster, in the shape of the kernel.
        number: how many there are.
        words: the same for a person, such as `8 clusters a channel`.
    """

    place: NDArray[np.int64]
    number: int
    words: str


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
        for place, axes in kernels_of(layer).items():
            kernel = np.asarray(layer.get_weights()[place], np.float32)
            gain = _spread(folded.gains.get(layer.name), kernel, axes)
            constraint, found = _constraint(kernel, gain, what)
            if found:
                yield layer.name, layer.trainable_variables[place], constraint, found


def keeper(kernel: NDArray[np.float32], axes: tuple[int, ...]) -> tuple[Any, str]:
    """Return a constraint that keeps a kernel's zeros or clusters, and what it keeps in words.

    Both are empty for a kernel that has neither.

    Args:
        kernel: the weights.
        axes: those that are the output channels.
    """
    return _constraint(kernel, _spread(None, kernel, axes), "auto")


def _spread(
    gain: NDArray[np.float32] | None, kernel: NDArray[np.float32], axes: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the factors of the output channels, 1 unless given, in a shape that broadcasts.

    Args:
        gain: `(C,)` factors.
        kernel: to whose shape.
        axes: those of the kernel that are the output channels.
    """
    shape = [size if axis in axes else 1 for axis, size in enumerate(kernel.shape)]
    return np.ones(shape, np.float32) if gain is None else gain.reshape(shape)


def can_share(weights: int, values: int) -> bool:
    """Whether so many weights share so many values: each has two on average, or more.

    With fewer, sharing saves nothing, and could not be told from weights that happen to be equal.
    """
    return weights >= _LEAST_REPEATS * values


def clusters_of(kernel: NDArray[np.float32], gain: NDArray[np.float32]) -> Clusters | None:
    """Return which weights share a value; None for a kernel without clusters.

    The values are the whole kernel's or, where it has too many, each output channel's own: those
    of a kernel that has batch norm folded into it already differ by the channel's factor.

    Args:
        kernel: the folded kernel, of any shape.
        gain: what batch norm multiplied each output channel with; it broadcasts to the kernel.
            What 0 made of a channel is zeros, whatever they were.
    """
    values: NDArray[np.float32] = np.divide(kernel, np.where(gain == 0, 1, gain), dtype=np.float32)
    own = [a for a in range(-gain.ndim, 0) if gain.shape[a] > 1]
    apart = np.moveaxis(values, own, range(len(own)))
    channels = apart.reshape(gain.size, -1)
    found = _shared(channels.reshape(1, -1), "clusters")
    found = found or _shared(channels, "clusters a channel")
    if found is None:
        return None
    place = np.moveaxis(found.place.reshape(apart.shape), range(len(own)), own)
    return found._replace(place=place)


def _shared(rows: NDArray[np.float32], what: str) -> Clusters | None:
    """Return which weights of the same row share a value; None if too few do."""
    values = np.sort(rows, axis=1)
    # Multiplying and dividing leaves noise of a few units in the last place.
    larger = np.maximum(np.abs(values[:, 1:]), np.abs(values[:, :-1]))
    first = np.ones(rows.shape, np.bool_)
    first[:, 1:] = np.diff(values) > 4e-7 * larger
    # Zeros are one value, and say nothing of how often others repeat.
    others = np.count_nonzero(first & (values != 0), axis=1)
    alive = int(np.count_nonzero(rows))
    if others.max() > _MOST_CLUSTERS or not can_share(alive, int(others.sum())):
        return None
    place = np.empty(rows.shape, np.int64)
    ranks = np.cumsum(first).reshape(rows.shape) - 1
    np.put_along_axis(place, np.argsort(rows, axis=1), ranks, axis=1)
    return Clusters(place, int(first.sum()), f"{first.sum(axis=1).max()} {what}")


def _constraint(
    kernel: NDArray[np.float32], gain: NDArray[np.float32], what: str
) -> tuple[Any, str]:
    keep_zeros, keep_clusters = constraints()
    clusters = clusters_of(kernel, gain) if what != "sparsity" else None
    if clusters is not None:
        return keep_clusters(kernel, clusters.place, clusters.number, gain), clusters.words
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
