"""Corruptions of test images, five strengths each, the way MedMNIST-C and ImageNet-C make them.

ImageNet-C (Hendrycks & Dietterich, ICLR 2019, arXiv:1903.12261) corrupts the test images alone, at
five strengths, and averages over them. MedMNIST-C (Di Salvo et al. 2024, arXiv:2406.17536; the
parameters are those of `bloodmnist` in `medmnistc/corruptions/registry.py` of its package
`medmnistc`) fits the parameters to each data set, for images of 224 pixels. From it are taken
defocus blur, JPEG and brightness up and down. It has no noise for BloodMNIST: those of its other
set of colour photographs, DermaMNIST, are used. It has no change of stain and no shift either; each
corruption's `source` says where its strengths are from.

Lengths in pixels are given for 224 and shrink with the side of the image, so that a cell is blurred
by the same share of itself. JPEG works on blocks of 8 pixels whatever the side: the same quality
hurts an image of 64 pixels more. Values are rounded, where theirs are cut off.

The random draws of an image depend on the seed, the corruption and the image's place in the split
alone: all strengths share them, and only their size grows.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.dataset import Images
from bloodedge.errors import ConfigError

Image = NDArray[np.uint8]
# One image, the value of the strength and the image's own source of randomness; float or uint8 out.
Apply = Callable[[Image, float, np.random.Generator], NDArray[np.uint8] | NDArray[np.float64]]

STRENGTHS = 5
# The side that MedMNIST-C's parameters are for.
THEIR_SIDE = 224
# A pixel is cut into so many parts a side to find how much of it a disc covers.
_PARTS = 16
_DIRECTIONS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x)


@dataclass(frozen=True)
class Corruption:
    """One way to spoil an image.

    Attributes:
        name: as tables call it.
        parameter: what the values are.
        values: one for each strength, from the weakest to the strongest.
        source: where the values are from.
        apply: spoils one `(S, S, 3)` uint8 image; what it returns is rounded and clipped to 0..255.
    """

    name: str
    parameter: str
    values: tuple[float, ...]
    source: str
    apply: Apply

    def value(self, strength: int) -> float:
        """Return the value of a strength, 1 to 5.

        Raises:
            ConfigError: there is no such strength.
        """
        if not 1 <= strength <= len(self.values):
            raise ConfigError(
                f"strength {strength} of {self.name}", expected=f"1 to {len(self.values)}"
            )
        return self.values[strength - 1]


def corrupted(images: Images, corruption: Corruption, strength: int, seed: int = 0) -> Images:
    """Return images `(N, S, S, 3)` spoilt by one corruption, uint8, in the same order.

    Raises:
        ConfigError: a strength that is not 1 to 5; strength 0 would be the images themselves.
    """
    value, own = corruption.value(strength), zlib.crc32(corruption.name.encode())
    out = np.empty_like(images)
    for index, image in enumerate(images):
        spoilt = corruption.apply(image, value, np.random.default_rng((seed, own, index)))
        out[index] = np.rint(spoilt).clip(0, 255)
    return out


def without_effect(corruption: Corruption, strengths: int, size: int) -> list[int]:
    """Return the strengths, of the first so many, that change no image of that side.

    What is far less than a pixel of a small image is nothing.
    """
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    wanted = range(1, strengths + 1)
    return [s for s in wanted if np.array_equal(corrupted(noise, corruption, s), noise)]


def _stain(image: Image, value: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Multiply the density of each stain, as training's augmentation does, by 1 + value * u."""
    from bloodedge.train.augment_ops import STAINS

    unit = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    change = 1 + value * rng.uniform(-1, 1, 3)
    density = -np.log(np.maximum(image, 1) / 255.0)
    stains = density @ np.linalg.inv(unit)
    return np.asarray(255 * np.exp(-(stains * change) @ unit), np.float64)


def disc(radius: float) -> NDArray[np.float64]:
    """Return the share of each pixel that a disc around the middle covers, summing to 1."""
    reach = int(np.ceil(max(0.0, radius - 0.5)))
    side = 2 * reach + 1
    at = (np.arange(side * _PARTS) + 0.5) / _PARTS - side / 2
    inside = at[:, None] ** 2 + at**2 <= radius**2
    covered = inside.reshape(side, _PARTS, side, _PARTS).sum(axis=(1, 3), dtype=np.float64)
    return np.asarray(covered / covered.sum(), np.float64)


def _blur(image: Image, value: float, rng: np.random.Generator) -> Image:
    """Spread each pixel over a disc, as a lens out of focus does; the border is mirrored."""
    from bloodedge.images import opencv

    kernel = disc(value * image.shape[0] / THEIR_SIDE)
    return np.asarray(opencv().filter2D(image, -1, kernel), np.uint8)


def _noise(image: Image, value: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return image + 255 * value * rng.standard_normal(image.shape)


def _jpeg(image: Image, value: float, rng: np.random.Generator) -> Image:
    from bloodedge.images import opencv

    cv2 = opencv()
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(value)])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def _brightness(image: Image, value: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return image.astype(np.float64) * value


def _shift(image: Image, value: float, rng: np.random.Generator) -> Image:
    """Move the image in one of eight directions; what comes in is mirrored, as in training."""
    reach = round(value * image.shape[0] / THEIR_SIDE)
    down, right = (reach * step for step in _DIRECTIONS[rng.integers(len(_DIRECTIONS))])
    wide = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    height, width = image.shape[:2]
    return wide[reach - down : reach - down + height, reach - right : reach - right + width]


CORRUPTIONS = (
    Corruption(
        "stain",
        "largest relative change of the density of haematoxylin, eosin and DAB",
        (0.05, 0.1, 0.2, 0.3, 0.4),
        "the first and third are the light and strong HED augmentation of Tellez et al. 2018",
        _stain,
    ),
    Corruption(
        "blur",
        "radius of the disc, in pixels of an image of 224",
        (2, 3, 4, 5, 6),
        "defocus_blur of MedMNIST-C, bloodmnist",
        _blur,
    ),
    Corruption(
        "noise",
        "standard deviation of Gaussian noise, as a share of 255",
        (0.04, 0.08, 0.12, 0.18, 0.26),
        "gaussian_noise of MedMNIST-C, dermamnist: it has none for bloodmnist",
        _noise,
    ),
    Corruption(
        "jpeg",
        "quality",
        (50, 30, 15, 10, 7),
        "jpeg_compression of MedMNIST-C, bloodmnist",
        _jpeg,
    ),
    Corruption(
        "brighter",
        "factor",
        (1.1, 1.2, 1.3, 1.35, 1.4),
        "brightness_up of MedMNIST-C, bloodmnist",
        _brightness,
    ),
    Corruption(
        "darker",
        "factor",
        (0.9, 0.8, 0.7, 0.6, 0.5),
        "brightness_down of MedMNIST-C, bloodmnist",
        _brightness,
    ),
    Corruption(
        "shift",
        "pixels of an image of 224, in one of eight directions",
        (7, 14, 21, 28, 35),
        "ours: 2 to 10 of 64 pixels; the strong recipe trains with up to 4",
        _shift,
    ),
)
