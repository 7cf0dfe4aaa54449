"""Which training images calibrate int8, and which val images check a slow parent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bloodedge.errors import ConfigError


def calibration_indices(labels: NDArray[np.int64], per_class: int, seed: int) -> NDArray[np.int64]:
    """Return a class-balanced draw without replacement, sorted.

    Each class is drawn on its own, so that a class gives the same images whatever the others
    hold; one with fewer than `per_class` images gives all of them.

    Args:
        labels: `(N,)` class indices of a split (train, for calibration).
        per_class: images of each class.
        seed: fixes the draw.

    Raises:
        ConfigError: `per_class` is below 1.
    """
    if per_class < 1:
        raise ConfigError(f"{per_class} images per class", expected="at least 1")
    chosen = []
    for c in np.unique(labels):
        members = np.flatnonzero(labels == c)
        rng = np.random.default_rng([seed, int(c)])
        chosen.append(rng.permutation(members)[:per_class])
    return np.sort(np.concatenate(chosen)).astype(np.int64)
