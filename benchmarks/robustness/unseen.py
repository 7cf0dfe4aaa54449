"""Further corruptions of MedMNIST-C, which no recipe trains with: what is learnt beyond those.

The recipe for images from elsewhere varies exposure, colour, stain, noise, focus and JPEG quality,
which is much of what `corruptions.py` measures. These it does not know.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.robustness.corruptions import THEIR_SIDE, Corruption, Image

# ITU-R BT.601, as Pillow makes a grey picture.
_GREY = np.array([0.299, 0.587, 0.114])
# Into how many points a path is cut.
_POINTS = 256


def path(length: float, angle: float) -> NDArray[np.float64]:
    """Return the share of each pixel that a straight path through the middle passes, summing to 1.

    Args:
        length: of the path, in pixels.
        angle: of its direction, in radians.
    """
    reach = int(np.ceil(length / 2))
    along = (np.arange(_POINTS) + 0.5) / _POINTS - 0.5
    kernel = np.zeros((2 * reach + 2, 2 * reach + 2))
    y, x = (reach + length * along * side for side in (np.sin(angle), np.cos(angle)))
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = y - row, x - column
    for r, c, share in (
        (0, 0, (1 - down) * (1 - right)),
        (0, 1, (1 - down) * right),
        (1, 0, down * (1 - right)),
        (1, 1, down * right),
    ):
        np.add.at(kernel, (row + r, column + c), share)
    whole = kernel[: 2 * reach + 1, : 2 * reach + 1]
    return np.asarray(whole / whole.sum(), np.float64)


def _motion(image: Image, value: float, rng: np.random.Generator) -> Image:
    """Smear the image along a path in a random direction; the border is mirrored."""
    from bloodedge.images import opencv

    kernel = path(value * image.shape[0] / THEIR_SIDE, rng.uniform(0, np.pi))
    return np.asarray(opencv().filter2D(image, -1, kernel), np.uint8)


def _contrast(image: Image, value: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Multiply each pixel's distance from the image's mean grey, as Pillow does."""
    grey = round(float((image @ _GREY).mean()))
    return np.asarray(grey + value * (image.astype(np.float64) - grey), np.float64)


def _saturation(image: Image, value: float, rng: np.random.Generator) -> NDArray[np.float64]:
    from bloodedge.images import opencv

    cv2 = opencv()
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = np.minimum(hsv[..., 1] + value, 1)
    return np.asarray(255.0 * cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float64)


UNSEEN = (
    Corruption(
        "motion",
        "length of a straight path, in pixels of an image of 224",
        (6, 9, 10, 14, 17),
        "ours: spreads each pixel as far as motion_blur of MedMNIST-C, bloodmnist",
        _motion,
    ),
    Corruption(
        "contrast-up",
        "factor",
        (1.1, 1.15, 1.2, 1.25, 1.3),
        "contrast_up of MedMNIST-C, bloodmnist",
        _contrast,
    ),
    Corruption(
        "contrast-down",
        "factor",
        (0.9, 0.8, 0.7, 0.6, 0.5),
        "contrast_down of MedMNIST-C, bloodmnist",
        _contrast,
    ),
    Corruption(
        "saturate",
        "what is added to the saturation, 0 to 1",
        (0.05, 0.1, 0.15, 0.17, 0.2),
        "saturate of MedMNIST-C, bloodmnist",
        _saturation,
    ),
)
