"""The study's VGG-16: plain, with dropout, with SE, with CBAM. No batch norm, three dense layers.

The study gives the layers of the plain net and the total with CBAM. All scale pixels to [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bloodedge.train.models.blocks import (
    attend,
    channel_gate,
    input_and_scaling,
    scaled,
    spatial_gate,
    squeeze_excite,
)

_GROUPS = ((32, 2), (64, 2), (128, 3), (256, 3), (256, 3))
_DENSE = 1024

# Takes the features, the group and the layer in it, and whether that is the group's last.
Gate = Callable[[Any, int, int, bool], Any]


def build_study_vgg16(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's plain VGG-16: 5,787,560 parameters. See `spec.Builder`."""
    return _build("study_vgg16", classes, size, batch, width, _after_groups(attention))


def build_study_vgg16_dropout(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's best net, the plain VGG-16 with dropout after both hidden dense layers.

    5,787,560 parameters. Assumed: a rate of 0.5, that of Simonyan & Zisserman 2015, as the study
    gives none. See `spec.Builder`.
    """
    gate = _after_groups(attention)
    return _build("study_vgg16_dropout", classes, size, batch, width, gate, dropout=0.5)


def build_study_vgg16_se(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's VGG-16 with SE: 5,807,414 parameters; the study gives no count.

    Assumed: one block before each pooling, ratio 16 with biases, as in its CNN with SE.
    See `spec.Builder`; it takes no other attention.
    """
    return _build("study_vgg16_se", classes, size, batch, width, _study_se)


def build_study_vgg16_cbam(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's VGG-16 with CBAM: 5,800,994 parameters, 13,434 more than without.

    The study says no more than that count. CBAM as published, once a group with ratio 16, would
    add 20,000. What is built here was fitted to the number, so it matches by construction and is
    not known to be the study's net: a channel gate of 8 hidden units at the end of each group, a
    7x7 spatial gate after each of the nine convolutions of the last three groups. See
    `spec.Builder`; it takes no other attention.
    """
    return _build("study_vgg16_cbam", classes, size, batch, width, _study_cbam)


def _after_groups(kind: str) -> Gate:
    def gate(x: Any, group: int, layer: int, last: bool) -> Any:
        return attend(x, kind, f"attend{group}") if last else x

    return gate


def _study_se(x: Any, group: int, layer: int, last: bool) -> Any:
    return squeeze_excite(x, f"se{group}", ratio=16, least=1) if last else x


def _study_cbam(x: Any, group: int, layer: int, last: bool) -> Any:
    if last:
        x = channel_gate(x, f"channel{group}", hidden=8)
    return spatial_gate(x, f"spatial{group}_{layer}") if group >= 3 else x


def _build(
    name: str,
    classes: int,
    size: int | None,
    batch: int | None,
    width: float,
    gate: Gate,
    dropout: float = 0.0,
) -> Any:
    import keras

    image, x = input_and_scaling(size, batch, unit=True)
    for group, (channels, depth) in enumerate(_GROUPS, start=1):
        for layer in range(1, depth + 1):
            x = _conv_relu(x, scaled(channels, width), f"conv{group}_{layer}")
            x = gate(x, group, layer, layer == depth)
        x = keras.layers.MaxPooling2D(2, name=f"pool{group}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for place in (1, 2):
        units = scaled(_DENSE, width)
        x = keras.layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"dense{place}")(
            x
        )
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{place}")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x), name=name)


def _conv_relu(x: Any, filters: int, name: str) -> Any:
    """Convolve 3x3 and rectify; without batch norm, only He's initialisation lets it learn."""
    import keras

    return keras.layers.Conv2D(
        filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name
    )(x)
