"""VGG-16 (Simonyan & Zisserman 2015, configuration D) with batch norm and global pooling."""

from __future__ import annotations

from typing import Any

from bloodedge.train.models.blocks import (
    attend,
    conv_bn_relu,
    input_and_scaling,
    logits_head,
    scaled,
)

_GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def build_vgg16(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build VGG-16: thirteen 3x3 convolutions in five groups, each followed by 2x2 max pooling.

    Global pooling replaces the three dense layers, which held 89 % of the original's parameters
    and tied it to one image size. 14.7 million parameters at width 1. Attention, if any, stands
    before each pooling. See `bloodedge.train.models.spec.Builder` for the arguments.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    for group, (channels, depth) in enumerate(_GROUPS, start=1):
        for layer in range(1, depth + 1):
            x = conv_bn_relu(x, scaled(channels, width), f"conv{group}_{layer}")
        x = attend(x, attention, f"attend{group}")
        x = keras.layers.MaxPooling2D(2, name=f"pool{group}")(x)
    return keras.Model(image, logits_head(x, classes, dropout=0.3), name="vgg16")
