"""Which images calibrate int8, or check a slow parent, and what is made of their ranges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bloodedge.errors import ConfigError

# Values no larger than this in a whole tensor are zeros.
_DEAD = 1e-6


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


def pinned(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return calibration images in float, the first with a black and a white value in its corner.

    They pin the input's range to 0..255, hence its scale to 1 and its zero point to 0: then a
    pixel's byte is its quantized value, whatever the brightest pixel of the draw.

    Args:
        images: `(N, S, S, 3)`.
    """
    pixels = images.astype(np.float32)
    pixels[0, 0, 0, :2] = 0.0, 255.0
    return pixels


def usable_range(low: float, high: float) -> tuple[float, float]:
    """Return a range, or 0 to 1 in place of one that is all zero, as of a unit that died.

    The runtimes refuse the scale of such a range, and any other gives the same zeros.
    """
    return (low, high) if max(high, -low) > _DEAD else (0.0, 1.0)
