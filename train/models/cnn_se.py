"""The compact student: a patch stem and three 3x3 convolutions, two of them with SE."""

from __future__ import annotations

from typing import Any

from bloodedge.train.models.blocks import (
    attend,
    conv_bn_relu,
    input_and_scaling,
    logits_head,
    scaled,
    squeeze_excite,
)


def build_cnn_se(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the student: 59,316 parameters and 5.7 million MACs at width 1 and 64x64.

    The stem takes 4x4 patches with stride 4, because int8 kernels pay per pixel and hardly per
    channel: no layer works above a quarter of the input's resolution. Its own attention is SE
    with an eighth of the channels hidden. See `bloodedge.train.models.spec.Builder` for the
    arguments.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    x = conv_bn_relu(x, scaled(32, width), "stem", kernel=4, stride=4)
    x = conv_bn_relu(x, scaled(32, width), "conv1")
    x = _attend(x, attention, 1)
    x = conv_bn_relu(x, scaled(64, width), "conv2", stride=2)
    x = _attend(x, attention, 2)
    x = conv_bn_relu(x, scaled(48, width), "conv3")
    return keras.Model(image, logits_head(x, classes, dropout=0.1), name="cnn_se")


def _attend(x: Any, kind: str, place: int) -> Any:
    if kind in ("", "se"):
        return squeeze_excite(x, f"se{place}")
    return attend(x, kind, f"attend{place}")
