"""Augmentation of whole batches in NumPy: the eight flips and turns, shifts, colour.

A blood smear has no up or down, so the eight symmetries of the square change no label. A view is
numbered 0..7 by three bits: 1 flips left-right, 2 flips up-down, 4 transposes (applied last).
Distillation computes a teacher's logits over the same eight views, so the numbering is shared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodedge.errors import ConfigError

VIEWS = 8


@dataclass(frozen=True)
class AugmentConfig:
    """How images vary in training.

    Attributes:
        views: how many of the eight flips and turns are used, 1 (none) to 8.
        shift: the largest shift in either direction, as a fraction of the side.
        brightness: the largest change of all channels, as a fraction of 255.
        colour: the largest relative change of each channel's gain, which moves the stain's hue.

    Raises:
        ConfigError: a value out of range.
    """

    views: int = VIEWS
    shift: float = 0.0625
    brightness: float = 0.08
    colour: float = 0.08

    def __post_init__(self) -> None:
        if not 1 <= self.views <= VIEWS:
            raise ConfigError(f"{self.views} views", expected=f"1 to {VIEWS}")
        for name in ("shift", "brightness", "colour"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise ConfigError(f"{name} {getattr(self, name)}", expected="0 to 0.5")


NO_AUGMENTATION = AugmentConfig(views=1, shift=0.0, brightness=0.0, colour=0.0)


def view_of(images: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    """Return one of the eight views of a batch `(N, S, S, 3)`."""
    if view & 1:
        images = images[:, :, ::-1]
    if view & 2:
        images = images[:, ::-1]
    if view & 4:
        images = images.swapaxes(1, 2)
    return images


def gather_views(
    images: NDArray[np.uint8],
    index: NDArray[np.int64],
    views: NDArray[np.int64],
    shift_px: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Pick, view and shift a batch in one indexing operation, without a loop over images.

    Args:
        images: `(M, S, S, 3)` the whole set.
        index: `(B,)` which images.
        views: `(B,)` numbers 0..7.
        shift_px: `(B, 2)` shifts in pixels, down and right; what enters mirrors the border.

    Returns:
        `(B, S, S, 3)` uint8.
    """
    side = images.shape[1]
    grid = np.arange(side)
    y = _mirror(grid - shift_px[:, :1], side)
    x = _mirror(grid - shift_px[:, 1:], side)
    turned = (views & 4)[:, None] > 0
    # Each axis of the output walks along one axis of the source; the transpose swaps which, and
    # with it the shift along that axis.
    y = np.where((views & 2)[:, None] > 0, side - 1 - y, y) * side
    x = np.where((views & 1)[:, None] > 0, side - 1 - x, x)
    along_rows = np.where(turned, x, y) + index[:, None] * side * side
    along_cols = np.where(turned, y, x)
    pixels = along_rows[:, :, None] + along_cols[:, None, :]
    batch: NDArray[np.uint8] = images.reshape(-1, 3).take(pixels, axis=0)
    return batch


def _mirror(position: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    position = np.abs(position)
    return np.minimum(position, 2 * (side - 1) - position)


def augment_batch(
    images: NDArray[np.uint8],
    index: NDArray[np.int64],
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw an augmented batch.

    Returns:
        `(B, S, S, 3)` float32 pixel values 0..255 and the `(B,)` views that were drawn.
    """
    n, side = len(index), images.shape[1]
    views = rng.integers(0, config.views, n)
    reach = round(config.shift * side)
    shift = rng.integers(-reach, reach + 1, (n, 2))
    batch = gather_views(images, index, views, shift).astype(np.float32)
    if config.colour or config.brightness:
        gain = 1 + rng.uniform(-config.colour, config.colour, (n, 1, 1, 3)).astype(np.float32)
        bias = 255 * rng.uniform(-config.brightness, config.brightness, (n, 1, 1, 1))
        batch *= gain
        batch += bias.astype(np.float32)
        np.clip(batch, 0, 255, out=batch)
    return batch, views


def shrink(batch: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Shrink a batch by averaging square blocks.

    Raises:
        ConfigError: the side is no multiple of `size`.
    """
    n, side = batch.shape[:2]
    if side == size:
        return batch
    if side % size:
        raise ConfigError(f"cannot shrink {side} pixels to {size}", expected="a whole divisor")
    k = side // size
    small: NDArray[np.float32] = batch.reshape(n, size, k, size, k, 3).mean(
        axis=(2, 4), dtype=np.float32
    )
    return small
