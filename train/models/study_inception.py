"""The study's Inception-v3 (after Szegedy et al. 2016), as far as its text and counts tell."""

from __future__ import annotations

from typing import Any

from bloodedge.train.models.blocks import input_and_scaling, logits_head, scaled

_Convolution = tuple[int, tuple[int, int]]  # filters and kernel of one convolution
_SQUARE = {1: (1, 1), 3: (3, 3), 5: (5, 5)}

# Branches side by side, each a chain; a pooled branch with 1x1 filters stands beside them.
_FACTORISED: tuple[tuple[_Convolution, ...], ...] = (
    ((64, _SQUARE[1]),),
    ((64, _SQUARE[1]), (64, _SQUARE[5])),
    ((64, _SQUARE[1]), (96, _SQUARE[3]), (96, _SQUARE[3])),
)
_ASYMMETRIC: tuple[tuple[_Convolution, ...], ...] = (
    ((192, _SQUARE[1]),),
    ((128, _SQUARE[1]), (128, (1, 7)), (192, (7, 1))),
    ((128, _SQUARE[1]), (128, (7, 1)), (128, (1, 7)), (128, (7, 1)), (192, (1, 7))),
)


def build_study_inception(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's Inception-v3: 10,313,288 parameters, of which 25,280 are not trainable.

    The study gives 10,313,800 (25,280 not trainable), a stem of 32, 64 and 96 filters, factorised
    and asymmetric branches, and global pooling. Eleven million combinations of stems, numbers and
    kinds of modules were counted; among those with that stem this one, with a bias in every
    convolution, has the right number of batch-normed channels and the nearest total, 512 or
    0.005 % short. Assumed: stem 32, 32, 64, 96, 192; three factorised modules (1x1, 5x5, two 3x3),
    five with 1x7 and 7x1, one with 1x3 beside 3x1; max pooling between them; dropout 0.
    See `bloodedge.train.models.spec.Builder` for the arguments; it takes no attention.
    """
    import keras

    image, x = input_and_scaling(size, batch, unit=True)
    x = _stem(x, width)
    for place in (1, 2, 3):
        x = _module(x, _FACTORISED, 64, width, f"factorised{place}")
    x = _pool(x, "reduce1")
    for place in range(1, 6):
        x = _module(x, _ASYMMETRIC, 192, width, f"asymmetric{place}")
    x = _expanded(_pool(x, "reduce2"), width, "expanded")
    return keras.Model(image, logits_head(x, classes, dropout=0.0), name="study_inception")


def _stem(x: Any, width: float) -> Any:
    """To a quarter of the input's resolution, and 192 channels."""
    x = _conv(x, 32, _SQUARE[3], width, "stem1", stride=2)
    x = _conv(x, 32, _SQUARE[3], width, "stem2")
    x = _pool(_conv(x, 64, _SQUARE[3], width, "stem3"), "stem_pool")
    x = _conv(x, 96, _SQUARE[3], width, "stem4")
    return _conv(x, 192, _SQUARE[1], width, "stem5")


def _module(
    x: Any, branches: tuple[tuple[_Convolution, ...], ...], pooled: int, width: float, name: str
) -> Any:
    import keras

    ends = [_pooled(x, pooled, width, name)]
    for branch, chain in enumerate(branches, start=1):
        y = x
        for place, (filters, kernel) in enumerate(chain, start=1):
            y = _conv(y, filters, kernel, width, f"{name}_{branch}_{place}")
        ends.append(y)
    return keras.layers.Concatenate(name=name)(ends)


def _expanded(x: Any, width: float, name: str) -> Any:
    """Apply the last module, whose branches end in 1x3 and 3x1 side by side."""
    import keras

    ends = [_pooled(x, 320, width, name), _conv(x, 320, _SQUARE[1], width, f"{name}_1")]
    for branch, filters in ((2, 384), (3, 448)):
        y = _conv(x, filters, _SQUARE[1], width, f"{name}_{branch}")
        ends.append(_conv(y, 384, (1, 3), width, f"{name}_{branch}_wide"))
        ends.append(_conv(y, 384, (3, 1), width, f"{name}_{branch}_tall"))
    return keras.layers.Concatenate(name=name)(ends)


def _pooled(x: Any, filters: int, width: float, name: str) -> Any:
    import keras

    y = keras.layers.AveragePooling2D(3, strides=1, padding="same", name=f"{name}_mean")(x)
    return _conv(y, filters, _SQUARE[1], width, f"{name}_pooled")


def _pool(x: Any, name: str) -> Any:
    import keras

    return keras.layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x)


def _conv(
    x: Any, filters: int, kernel: tuple[int, int], width: float, name: str, *, stride: int = 1
) -> Any:
    """Convolve with bias, same-padded, then batch norm and ReLU."""
    import keras

    x = keras.layers.Conv2D(
        scaled(filters, width), kernel, strides=stride, padding="same", name=name
    )(x)
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
