"""ResNet-18 (He et al. 2016), as published and as the study built it."""

from __future__ import annotations

from typing import Any

from bloodedge.train.models.blocks import attend, conv_bn, input_and_scaling, logits_head, scaled

_STAGES = (64, 128, 256, 512)


def build_resnet18(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build ResNet-18: 11.2 million parameters at width 1.

    The stem is the published one, a 7x7 convolution and a 3x3 pooling, both with stride 2, so that
    images of 64 pixels reach the last stage as 2x2. Attention, if any, stands at the end of each
    residual branch, as in the SE and CBAM papers. See `bloodedge.train.models.spec.Builder` for
    the arguments.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    x = _residual_stages(x, width, attention, bias=False)
    return keras.Model(image, logits_head(x, classes, dropout=0.1), name="resnet18")


def build_study_resnet(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's ResNet: 11,195,016 parameters, of which 9,600 are not trainable.

    The study names neither depth nor layout. ResNet-18 with a bias on every convolution, batch
    norm on the shortcuts, too, and the published stem has exactly these two counts. Assumed: no
    dropout. See `bloodedge.train.models.spec.Builder` for the arguments.
    """
    import keras

    image, x = input_and_scaling(size, batch, unit=True)
    x = _residual_stages(x, width, attention, bias=True)
    return keras.Model(image, logits_head(x, classes, dropout=0.0), name="study_resnet")


def _residual_stages(x: Any, width: float, attention: str, *, bias: bool) -> Any:
    import keras

    x = conv_bn(x, scaled(_STAGES[0], width), "stem", kernel=7, stride=2, bias=bias)
    x = keras.layers.ReLU(name="stem_relu")(x)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage, channels in enumerate(_STAGES, start=1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"block{stage}_{block}"
            x = _block(x, scaled(channels, width), stride, attention, name, bias=bias)
    return x


def _block(x: Any, filters: int, stride: int, attention: str, name: str, *, bias: bool) -> Any:
    """Two 3x3 convolutions beside a shortcut, which a 1x1 convolution fits to a new shape."""
    import keras

    y = conv_bn(x, filters, f"{name}_a", stride=stride, bias=bias)
    y = keras.layers.ReLU(name=f"{name}_a_relu")(y)
    y = conv_bn(y, filters, f"{name}_b", bias=bias)
    y = attend(y, attention, f"{name}_attend")
    if stride > 1 or x.shape[-1] != filters:
        x = conv_bn(x, filters, f"{name}_shortcut", kernel=1, stride=stride, bias=bias)
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([x, y]))
