"""Images of noise, for asking a model what it computes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_OPEN_SIDE = 64


def noise(shape: tuple[int | None, ...], images: int) -> NDArray[np.float32]:
    """Return pixel values 0..255 in the shape of a model's input, the same at every call.

    Args:
        shape: such as `(None, S, S, 3)`; a side that is open becomes 64.
        images: how many where the batch is open.
    """
    sides = [shape[0] or images, *(side or _OPEN_SIDE for side in shape[1:])]
    return np.random.default_rng(0).integers(0, 256, sides).astype(np.float32)
