"""What a microscope and a camera do to a picture, as Keras operations on whole batches."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 8
# ITU-T T.81 (1992), Annex K.1: the usual quantization tables, for luminance and chrominance.
_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA = np.full((_BLOCK, _BLOCK), 99, np.float32)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# ITU-T T.871 (2011), JFIF: red, green and blue from Y, Cb and Cr, the last two about 0.
_TO_RGB = np.array([[1, 1, 1], [0, -0.344136, 1.772], [1.402, -0.714136, 0]], np.float32)


def blurred(x: Any, sigma: Any) -> Any:
    """Blur a batch by Gaussians, about as a lens out of focus does.

    Two products of matrices an image cost less than a convolution with a kernel for each.

    Args:
        x: `(B, S, S, 3)` float32.
        sigma: `(B,)` standard deviations in pixels; 0 leaves an image as it is.
    """
    from keras import ops

    side = x.shape[1]
    apart = np.square(np.arange(side)[:, None] - np.arange(side), dtype=np.float32)
    spread = ops.exp(ops.divide(-apart, 2 * ops.square(ops.maximum(sigma, 1e-3))[:, None, None]))
    # At the border the pixels that there are share the weight.
    weights = spread / ops.sum(spread, axis=-1, keepdims=True)
    for _ in range(2):
        mixed = ops.matmul(weights, ops.reshape(x, (-1, side, side * 3)))
        x = ops.transpose(ops.reshape(mixed, (-1, side, side, 3)), (0, 2, 1, 3))
    return x


def compressed(x: Any, quality: Any) -> Any:
    """Return a batch as JPEG gives it back, with half of the colour's resolution each way.

    It does what libjpeg does, in float: pixels are not rounded before and after.

    Args:
        x: `(B, S, S, 3)` float32 pixel values.
        quality: `(B,)` int32, 1 to 100 as libjpeg counts; 0 leaves an image as it is.
    """
    from keras import ops

    side = x.shape[1]
    there, back = _across(side)
    rows = ops.matmul(ops.reshape(x - 128.0, (-1, side, side * 3)), there)
    planes = ops.split(rows, _ends(side), axis=-1)
    tables = (_LUMA, _CHROMA, _CHROMA)
    kept = [_quantized(*each, quality, side) for each in zip(planes, tables, strict=True)]
    pixels = ops.matmul(ops.concatenate(kept, axis=-1), back) + 128.0
    change = ops.clip(ops.reshape(pixels, (-1, side, side, 3)), 0.0, 255.0) - x
    # A choice between two batches, image by image, is slow on TensorFlow.
    return x + ops.cast(quality > 0, "float32")[:, None, None, None] * change


def _quantized(rows: Any, table: NDArray[np.float32], quality: Any, side: int) -> Any:
    """Make waves of one colour's columns too, `(B, S, W)`, round them, and make columns of them."""
    from keras import ops

    count = rows.shape[-1]
    there, back = _transforms(side, 1 if table is _LUMA else 2)
    steps = ops.tile(_steps(table, quality), (1, count // _BLOCK, count // _BLOCK))
    return ops.matmul(back, ops.round(ops.matmul(there, rows) / steps) * steps)


@cache
def _across(side: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what makes waves of all colours from a row of red, green and blue, and back.

    Returns:
        `(3 S, W)` and `(W, 3 S)` float32; the W waves are those of Y, then Cb, then Cr.
    """
    pairs = [_transforms(side, shrunk) for shrunk in (1, 2, 2)]
    from_rgb = np.linalg.inv(_TO_RGB)
    there = [np.kron(t.T, from_rgb[:, k : k + 1]) for k, (t, _) in enumerate(pairs)]
    back = [np.kron(b.T, _TO_RGB[k : k + 1]) for k, (_, b) in enumerate(pairs)]
    return np.concatenate(there, axis=1), np.concatenate(back)


def _ends(side: int) -> list[int]:
    """Return where, among the waves of all colours, those of Y and Cb end."""
    luma, chroma = (len(_transforms(side, shrunk)[0]) for shrunk in (1, 2))
    return [luma, luma + chroma]


def _steps(table: NDArray[np.float32], quality: Any) -> Any:
    """Return `(B, 8, 8)` quantization steps, as libjpeg's `jpeg_quality_scaling` makes them."""
    from keras import ops

    quality = ops.cast(ops.maximum(quality, 1), "float32")
    percent = ops.where(quality < 50, ops.floor(5000 / quality), 200 - 2 * quality)
    return ops.clip(ops.floor((ops.multiply(table, percent[:, None, None]) + 50) / 100), 1.0, 255.0)


@cache
def _transforms(side: int, shrunk: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what makes waves of a row of pixels, and pixels of the waves.

    Padding to whole blocks, shrinking and enlarging are part of them.

    Args:
        side: pixels in a row, S.
        shrunk: 2 to halve the resolution, 1 to keep it.

    Returns:
        `(W, S)` and `(S, W)` float32.
    """
    count = -(-side // (_BLOCK * shrunk)) * _BLOCK
    padded = np.eye(side)[np.minimum(np.arange(count * shrunk), side - 1)]
    shrinking = padded.reshape(count, shrunk, side).mean(axis=1)
    waves = np.kron(np.eye(count // _BLOCK), _cosines())
    enlarging = _enlarging(count) if shrunk == 2 else np.eye(count)
    there, back = waves @ shrinking, enlarging[:side] @ waves.T
    return there.astype(np.float32), back.astype(np.float32)


def _cosines() -> NDArray[np.float64]:
    """Return the orthonormal cosine transform of 8 values, `(8, 8)`, a row for each frequency."""
    k, n = np.arange(_BLOCK)[:, None], np.arange(_BLOCK)
    rows = np.cos(np.pi * (2 * n + 1) * k / (2 * _BLOCK)) * np.sqrt(2 / _BLOCK)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float64)


def _enlarging(count: int) -> NDArray[np.float64]:
    """Return `(2 count, count)`: three quarters of the nearer pixel and one of the other."""
    near = np.arange(2 * count) // 2
    far = np.clip(near + np.where(np.arange(2 * count) % 2, 1, -1), 0, count - 1)
    return np.asarray(0.75 * np.eye(count)[near] + 0.25 * np.eye(count)[far], np.float64)
