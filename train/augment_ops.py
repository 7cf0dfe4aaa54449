"""Augmentation as Keras operations on whole batches, part of the compiled training step."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.train.augment import GRAIN, AugmentConfig
from bloodedge.train.camera import blurred, compressed

# Optical densities of haematoxylin, eosin and DAB in red, green and blue (Ruifrok & Johnston
# 2001), each a unit vector, as in scikit-image's `rgb_from_hed`.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)


def augment(images: Any, draws: dict[str, Any], config: AugmentConfig) -> Any:
    """Vary a batch as drawn.

    Args:
        images: `(B, S, S, 3)` uint8.
        draws: see `bloodedge.train.augment.draw`.
        config: what varies; decides which operations the graph holds.

    Returns:
        `(B, S, S, 3)` float32 pixel values 0..255.
    """
    from keras import ops

    x = ops.cast(_moved(images, draws, config), "float32")
    if config.stain:
        x = _restained(x, draws["stain"])
    if config.blur:
        x = blurred(x, draws["blur"])
    if config.colour or config.exposure:
        x = _gained(x, draws["gain"])
    if config.contrast:
        middle = ops.mean(x, axis=(1, 2, 3), keepdims=True)
        x = middle + draws["contrast"][:, None, None, None] * (x - middle)
    if config.brightness:
        x = x + draws["bias"][:, None, None, None]
    if config.noise:
        x = x + _noise(x.shape[1:], draws)
    if config.recolours:
        x = ops.clip(x, 0.0, 255.0)
    if config.jpeg:
        x = compressed(x, draws["quality"])
    return _mixed(x, draws) if config.mixes else x


def mix_targets(rows: Any, draws: dict[str, Any]) -> Any:
    """Return `(B, K)` targets mixed as the images were."""
    from keras import ops

    share = draws["share"][:, None]
    return share * rows + (1 - share) * ops.take(rows, draws["partner"], axis=0)


def shrink_by(x: Any, factor: int) -> Any:
    """Shrink a batch by averaging blocks of `factor` x `factor` pixels."""
    from keras import ops

    if factor == 1:
        return x
    size = x.shape[1] // factor
    return ops.mean(ops.reshape(x, (-1, size, factor, size, factor, 3)), axis=(2, 4))


def _moved(images: Any, draws: dict[str, Any], config: AugmentConfig) -> Any:
    if config.views == 1 and not config.shift and not config.scale:
        return images
    rows, columns = _source_axes(images.shape[1], draws, config)
    if config.scale:
        return _bilinear(images, rows, columns, draws["view"])
    return _gather(images, rows, columns, draws["view"])


def _source_axes(side: int, draws: dict[str, Any], config: AugmentConfig) -> tuple[Any, Any]:
    """Return where each output row and column comes from, `(B, S)` each, before the transpose."""
    from keras import ops

    grid = ops.expand_dims(ops.arange(side, dtype="int32"), 0)
    axes = []
    for axis, bit in ((0, 2), (1, 1)):
        flipped = (draws["view"][:, None] // bit) % 2 == 1
        at = ops.where(flipped, side - 1 - grid, grid)
        if config.shift:
            at = _mirrored(at - draws["shift"][:, axis : axis + 1], side)
        if config.scale:
            middle = (side - 1) / 2
            at = (ops.cast(at, "float32") - middle) / draws["zoom"][:, None] + middle
            at = ops.clip(at, 0.0, side - 1.0)
        axes.append(at)
    return axes[0], axes[1]


def _mirrored(at: Any, side: int) -> Any:
    """Reflect positions that a shift has moved over the border."""
    from keras import ops

    at = ops.abs(at)
    return ops.minimum(at, 2 * (side - 1) - at)


def _gather(images: Any, rows: Any, columns: Any, view: Any) -> Any:
    """Pick pixels: output (r, c) is the source's (rows[r], columns[c]), transposed for views 4..7.

    Each axis of the output walks along one axis of the source; the transpose swaps which.
    """
    from keras import ops

    side = images.shape[1]
    turned = (view[:, None] // 4) == 1
    offset = ops.expand_dims(ops.arange(ops.shape(images)[0], dtype="int32"), 1) * (side * side)
    down = ops.where(turned, columns, rows * side) + offset
    across = ops.where(turned, rows * side, columns)
    pixels = ops.expand_dims(down, 2) + ops.expand_dims(across, 1)
    return _rows_at(ops.reshape(images, (-1, 3)), pixels)


def _rows_at(rows: Any, at: Any) -> Any:
    """Return `rows[at]`, for many short rows.

    On TensorFlow, Keras' `take` looks for negative places first, and its kernel is the slower one.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.ops.take(rows, at, axis=0)
    import tensorflow as tf

    return tf.gather_nd(rows, at[..., None])


def _bilinear(images: Any, rows: Any, columns: Any, view: Any) -> Any:
    from keras import ops

    side = images.shape[1]
    row0, column0 = ops.cast(ops.floor(rows), "int32"), ops.cast(ops.floor(columns), "int32")
    row1, column1 = ops.minimum(row0 + 1, side - 1), ops.minimum(column0 + 1, side - 1)
    # The weights turn with the image.
    turned = (view // 4 == 1)[:, None, None]
    wr, wc = rows - ops.cast(row0, "float32"), columns - ops.cast(column0, "float32")
    by_row = ops.where(turned, wr[:, None, :], wr[:, :, None])[..., None]
    by_column = ops.where(turned, wc[:, :, None], wc[:, None, :])[..., None]

    def corner(r: Any, c: Any) -> Any:
        return ops.cast(_gather(images, r, c, view), "float32")

    above = corner(row0, column0) * (1 - by_column) + corner(row0, column1) * by_column
    below = corner(row1, column0) * (1 - by_column) + corner(row1, column1) * by_column
    return above * (1 - by_row) + below * by_row


def _restained(x: Any, change: Any) -> Any:
    """Scale the density of each stain: x -> 255 exp(-(D M^-1 diag(change) M)), D = -ln(x / 255)."""
    from keras import ops

    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    density = -ops.log(ops.maximum(x, 1.0) / 255.0)
    stains = ops.matmul(density, np.linalg.inv(unit).astype(np.float32))
    return 255.0 * ops.exp(-ops.matmul(stains * change[:, None, None, :], unit))


def _gained(x: Any, gain: Any) -> Any:
    """Multiply the channels, a row of pixels at once: repeating three numbers is slow."""
    from keras import ops

    _, height, width, channels = x.shape
    rows = ops.reshape(x, (-1, height, width * channels)) * ops.tile(gain, (1, width))[:, None, :]
    return ops.reshape(rows, (-1, height, width, channels))


@cache
def _grain() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(GRAIN, np.float32)


def _noise(shape: tuple[int, ...], draws: dict[str, Any]) -> Any:
    """Return noise of the drawn strengths; every backend sees the same, from one fixed table."""
    from keras import ops

    values = int(np.prod(shape))
    at = (draws["grain"][:, None] + ops.arange(values, dtype="int32")) % GRAIN
    grain = ops.reshape(_rows_at(_grain(), at), (-1, *shape))
    return draws["sigma"][:, None, None, None] * grain


def _mixed(x: Any, draws: dict[str, Any]) -> Any:
    """Blend with the partner, or paste the partner's rectangle where one was drawn."""
    from keras import ops

    box = draws["box"]
    at = ops.expand_dims(ops.arange(x.shape[1], dtype="int32"), 0)
    rows = ops.logical_and(at >= box[:, 0:1], at < box[:, 1:2])[:, :, None, None]
    columns = ops.logical_and(at >= box[:, 2:3], at < box[:, 3:4])[:, None, :, None]
    kept = 1.0 - ops.cast(ops.logical_and(rows, columns), "float32")
    cut = (box[:, 1] > 0)[:, None, None, None]
    blend = ops.where(cut, kept, draws["share"][:, None, None, None])
    return blend * x + (1 - blend) * ops.take(x, draws["partner"], axis=0)
