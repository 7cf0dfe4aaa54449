"""Full-size references from `keras.applications`, without pretrained weights.

They are built into our own input and head; only MobileNetV3 takes a width, none an attention.
"""

from __future__ import annotations

from typing import Any

from bloodedge.train.models.blocks import input_and_scaling, logits_head


def build_resnet50(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build ResNet-50 (He et al. 2016): 23.6 million parameters.

    See `bloodedge.train.models.spec.Builder` for the arguments; it has one width and no attention.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    net = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=x)
    return keras.Model(image, logits_head(net.output, classes, dropout=0.1), name="resnet50")


def build_inception_v3(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build Inception-v3 (Szegedy et al. 2016): 21.8 million parameters.

    It needs 75 pixels a side, so the images are first enlarged to twice theirs, bilinearly. See
    `bloodedge.train.models.spec.Builder` for the arguments; it has one width and no attention.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear", name="enlarge")(x)
    net = keras.applications.InceptionV3(include_top=False, weights=None, input_tensor=x)
    return keras.Model(image, logits_head(net.output, classes, dropout=0.2), name="inception_v3")


def build_mobilenet_v3_small(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build MobileNetV3-Small (Howard et al. 2019): 0.9 million parameters at width 1.

    Its own preprocessing is left out, ours is the same; global pooling and one dense layer replace
    the wide head meant for a thousand classes. `width` is the paper's multiplier. See
    `bloodedge.train.models.spec.Builder` for the arguments; it has its own SE blocks only.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    net = keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_tensor=x, alpha=width, include_preprocessing=False
    )
    _keep_up(net)
    logits = logits_head(net.output, classes, dropout=0.2)
    return keras.Model(image, logits, name="mobilenet_v3_small")


def build_mobilenet_v2_035(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build MobileNetV2 (Sandler et al. 2018) with 0.35 of its channels: 0.4 million parameters.

    The smallest of those that are published. One dense layer replaces the head meant for a thousand
    classes. See `bloodedge.train.models.spec.Builder` for the arguments; it has one width and no
    attention.
    """
    import keras

    image, x = input_and_scaling(size, batch)
    net = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_tensor=x, alpha=0.35
    )
    _keep_up(net)
    logits = logits_head(net.output, classes, dropout=0.2)
    return keras.Model(image, logits, name="mobilenet_v2_035")


def _keep_up(net: Any) -> None:
    """Let batch norm's statistics follow within an epoch, as those of our own models do.

    MobileNet's momentum of 0.999 is meant for epochs of ten thousand steps: after one of a hundred
    its statistics would still be the initial ones, and val would see another net than was trained.
    """
    import keras

    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
