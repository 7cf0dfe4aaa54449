"""What augmentation varies, and the random draws: a few numbers per image, made on the host.

A blood smear has no up or down, so the eight symmetries of the square change no label. A view is
numbered 0..7 by three bits: 1 flips left-right, 2 flips up-down, 4 transposes (applied last).
Distillation computes a teacher's logits over the same eight views, so the numbering is shared.

The draws depend on seed, epoch and step alone, so that every backend sees the same ones and a
resumed run repeats them; `bloodedge.train.augment_ops` applies them inside the compiled step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.errors import ConfigError

VIEWS = 8
# How many values of noise there are; images take them from different places on.
GRAIN = 2**16
Draws = dict[str, NDArray[Any]]
_REACHES = (
    "shift", "scale", "brightness", "colour", "exposure", "noise", "stain", "contrast", "blur"
)  # fmt: skip
# What cameras and programs use; below, one sees the blocks.
_QUALITIES = (10, 95)


@dataclass(frozen=True)
class AugmentConfig:
    """How images vary in training. A value of 0 leaves a step out of the graph.

    Attributes:
        views: how many of the eight flips and turns are used, 1 (none) to 8.
        shift: the largest shift in either direction, as a fraction of the side.
        scale: the largest relative change of size; the image is resampled bilinearly.
        brightness: the largest change of all channels, as a fraction of 255.
        colour: the largest relative change of each channel's gain, which moves the stain's hue.
        exposure: the largest relative change of all channels together.
        noise: the largest standard deviation of Gaussian noise, as a fraction of 255.
        stain: the largest relative change of each stain's density in haematoxylin-eosin-DAB space
            (Ruifrok & Johnston 2001, Tellez et al. 2018).
        contrast: the largest relative change of the distance of all values from the image's mean.
        blur: the largest standard deviation of a Gaussian blur, as a fraction of the side.
        jpeg: the share of the images that are as JPEG gives them back, of qualities from 10 to 95.
        mixup: alpha of the Beta distribution that blends pairs of images (Zhang et al. 2018).
        cutmix: alpha of the Beta distribution of the share of an image that a rectangle of its
            partner covers (Yun et al. 2019). With mixup, half of the images take either.

    Raises:
        ConfigError: a value out of range.
    """

    views: int = VIEWS
    shift: float = 0.0625
    scale: float = 0.0
    brightness: float = 0.02
    colour: float = 0.02
    exposure: float = 0.0
    noise: float = 0.0
    stain: float = 0.0
    contrast: float = 0.0
    blur: float = 0.0
    jpeg: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.views <= VIEWS:
            raise ConfigError(f"{self.views} views", expected=f"1 to {VIEWS}")
        for name in _REACHES:
            if not 0 <= getattr(self, name) <= 0.5:
                raise ConfigError(f"{name} {getattr(self, name)}", expected="0 to 0.5")
        if not 0 <= self.jpeg <= 1:
            raise ConfigError(f"jpeg {self.jpeg}", expected="0 to 1")
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 10:
                raise ConfigError(f"{name} {getattr(self, name)}", expected="0 to 10")

    @property
    def recolours(self) -> bool:
        """Whether pixels take other values than those that are read."""
        tints = (self.brightness, self.colour, self.exposure, self.noise, self.stain)
        return any((*tints, self.contrast, self.blur, self.jpeg))

    @property
    def wide(self) -> bool:
        """Whether images vary beyond those of one camera and laboratory, as by `recipes.robust`."""
        return any((self.exposure, self.noise, self.contrast, self.blur, self.jpeg))

    @property
    def mixes(self) -> bool:
        """Whether images are combined in pairs, and their targets with them."""
        return bool(self.mixup or self.cutmix)


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


def draw(config: AugmentConfig, count: int, side: int, rng: np.random.Generator) -> Draws:
    """Draw how a batch varies.

    Args:
        config: what may vary.
        count: images in the batch, B.
        side: their side in pixels, S.
        rng: the source of randomness.

    Returns:
        `view` (B,) 0..7 always; and, where the configuration asks for it, `shift` (B, 2) pixels
        down and right, `zoom` (B,), `gain` (B, 3), `bias` (B,) in pixel values, `stain` (B, 3),
        `sigma` (B,) of the noise in pixel values and `grain` (B,) where it begins in a table of
        `GRAIN` values, `contrast` (B,), `blur` (B,) a standard deviation in pixels, `quality` (B,)
        of the JPEG, 0 for none; to mix: `partner` (B,) positions in the batch, `share` (B,) the
        weight of the image itself, and `box` (B, 4) the partner's rectangle as top, bottom, left,
        right, zeros for mixup.
    """
    draws: Draws = {"view": rng.integers(0, config.views, count).astype(np.int32)}
    if config.shift:
        reach = round(config.shift * side)
        draws["shift"] = rng.integers(-reach, reach + 1, (count, 2)).astype(np.int32)
    if config.scale:
        draws["zoom"] = _around_one(rng, config.scale, (count,))
    if config.colour:
        draws["gain"] = _around_one(rng, config.colour, (count, 3))
    if config.brightness:
        bias = 255 * rng.uniform(-config.brightness, config.brightness, count)
        draws["bias"] = bias.astype(np.float32)
    if config.stain:
        draws["stain"] = _around_one(rng, config.stain, (count, 3))
    if config.exposure:
        together = _around_one(rng, config.exposure, (count, 1))
        draws["gain"] = together * draws.get("gain", np.ones((count, 3), np.float32))
    if config.noise:
        draws["sigma"] = (255 * rng.uniform(0, config.noise, count)).astype(np.float32)
        draws["grain"] = rng.integers(0, GRAIN, count).astype(np.int32)
    if config.contrast:
        draws["contrast"] = _around_one(rng, config.contrast, (count,))
    if config.blur:
        draws["blur"] = (side * rng.uniform(0, config.blur, count)).astype(np.float32)
    if config.jpeg:
        low, high = _QUALITIES
        quality = rng.integers(low, high + 1, count) * (rng.random(count) < config.jpeg)
        draws["quality"] = quality.astype(np.int32)
    if config.mixes:
        draws |= _pairs(config, count, side, rng)
    return draws


def _around_one(
    rng: np.random.Generator, reach: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    return (1 + rng.uniform(-reach, reach, shape)).astype(np.float32)


def _pairs(config: AugmentConfig, count: int, side: int, rng: np.random.Generator) -> Draws:
    cut = np.full(count, bool(config.cutmix))
    if config.mixup and config.cutmix:
        cut = rng.random(count) < 0.5
    alpha = np.where(cut, config.cutmix, config.mixup)
    share = rng.beta(alpha, alpha)
    reach = side * np.sqrt(1 - share) / 2
    middle = rng.integers(0, side, (2, count))
    low = np.clip(middle - reach, 0, side).astype(np.int32) * cut
    high = np.clip(middle + reach, 0, side).astype(np.int32) * cut
    # The rectangle may be cut off by the border: the targets follow its true area.
    area = (high - low).prod(axis=0) / side**2
    return {
        "partner": rng.permutation(count).astype(np.int32),
        "share": np.where(cut, 1 - area, share).astype(np.float32),
        "box": np.stack([low[0], high[0], low[1], high[1]], axis=1).astype(np.int32),
    }


def shrink(batch: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Shrink a batch `(N, S, S, 3)` to `(N, size, size, 3)` by averaging square blocks.

    Raises:
        ConfigError: the side is no multiple of `size`.
    """
    side = batch.shape[1]
    if side == size:
        return batch
    k = shrink_factor(side, size)
    # Whole rows are added first: NumPy's mean over axes apart is slower.
    rows = reduce(np.add, [batch[:, at::k] for at in range(k)])
    small: NDArray[np.float32] = reduce(np.add, [rows[:, :, at::k] for at in range(k)])
    return small / np.float32(k * k)


def shrink_factor(side: int, size: int) -> int:
    """Return by how much images of `side` pixels are shrunk to `size`.

    Raises:
        ConfigError: `size` is no whole divisor.
    """
    if side % size:
        raise ConfigError(f"cannot shrink {side} pixels to {size}", expected="a whole divisor")
    return side // size
