"""The compact student: a patch stem and three 3x3 convolutions, two of them with SE."""

from __future__ import annotations

from typing import Any

from bloodedge.train.models.blocks import (
    conv_bn_relu,
    input_and_scaling,
    logits_head,
    scaled,
    squeeze_excite,
)


def build_cnn_se(
    *, classes: int, size: int | None, batch: int | None = None, width: float = 1.0
) -> Any:
    """Build the student: 59,316 parameters and 5.7 million MACs at width 1 and 64x64.

    The stem takes 4x4 patches with stride 4, because int8 kernels pay per pixel and hardly per
    channel: no layer works above a quarter of the input's resolution. See
    `bloodedge.train.registry.Builder` for the arguments.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    x = conv_bn_relu(x, scaled(32, width), "stem", kernel=4, stride=4)
    x = conv_bn_relu(x, scaled(32, width), "conv1")
    x = squeeze_excite(x, "se1")
    x = conv_bn_relu(x, scaled(64, width), "conv2", stride=2)
    x = squeeze_excite(x, "se2")
    x = conv_bn_relu(x, scaled(48, width), "conv3")
    return keras.Model(image, logits_head(x, classes, dropout=0.1), name="cnn_se")
