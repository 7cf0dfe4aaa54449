"""What a model is trained towards: hard labels here; distillation adds its own."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Targets(Protocol):
    """The targets of one fit.

    `for_batch` yields one float32 row an image whose first `classes` entries are the label,
    one-hot or smoothed; `loss` takes such rows and what the answering model says.
    """

    def for_batch(self, index: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return `(B, K)` targets for the images `index`, seen in the views `views`."""

    def respond(self, net: Any) -> Any:
        """Return the Keras model on the net's weights whose outputs the loss takes.

        Its rows start with the net's logits; what a loss needs beside them may follow.
        """

    def loss(self, target: Any, outputs: Any) -> Any:
        """Return the `(B,)` losses, in Keras operations."""


class HardLabels:
    """Cross-entropy on labels, optionally smoothed (Szegedy et al. 2016).

    Args:
        labels: `(N,)` class indices.
        classes: the number of classes.
        smoothing: the share of each target spread evenly over all classes.
    """

    def __init__(self, labels: NDArray[np.int64], classes: int, smoothing: float = 0.0) -> None:
        one_hot = np.eye(classes, dtype=np.float32)[labels]
        self._rows = one_hot * np.float32(1 - smoothing) + np.float32(smoothing / classes)

    def for_batch(self, index: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the labels, which are the same in every view."""
        rows: NDArray[np.float32] = self._rows[index]
        return rows

    def respond(self, net: Any) -> Any:
        """Return the net: its logits are all that the loss takes."""
        return net

    def loss(self, target: Any, outputs: Any) -> Any:
        """Return the cross-entropy of each image."""
        import keras

        return keras.losses.categorical_crossentropy(target, outputs, from_logits=True)
