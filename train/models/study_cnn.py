"""The study's three small CNNs. All scale pixels to [0, 1] and end in dense layers."""

from __future__ import annotations

from typing import Any

from bloodedge.train.models.blocks import attend, input_and_scaling, scaled, squeeze_excite


def build_study_cnn4(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's basic CNN with four layers: 130,792 parameters at 64x64.

    Its text allows two readings; only this one has its count: 3x3 convolutions of 16, 32, 64 and
    128 filters without padding, each pooled, then a dense layer of 64. See `spec.Builder`.
    """
    import keras

    image, x = input_and_scaling(size, batch, unit=True)
    for place, filters in enumerate((16, 32, 64, 128), start=1):
        x = keras.layers.Conv2D(scaled(filters, width), 3, activation="relu", name=f"conv{place}")(
            x
        )
        x = attend(x, attention, f"attend{place}")
        x = keras.layers.MaxPooling2D(2, name=f"pool{place}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(scaled(64, width), activation="relu", name="dense")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x), name="study_cnn4")


def build_study_cnn_bn(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's CNN with batch norm and dropout: 626,024 parameters at 64x64, 992 fixed.

    Four same-padded 3x3 convolutions with batch norm, each pooled, a dense layer of 256 with batch
    norm, dropout 0.4. Assumed: ReLU after batch norm. See `spec.Builder`.
    """
    import keras

    image, x = input_and_scaling(size, batch, unit=True)
    for place, filters in enumerate((16, 32, 64, 128), start=1):
        x = _conv_bn_relu(x, scaled(filters, width), f"conv{place}")
        x = attend(x, attention, f"attend{place}")
        x = keras.layers.MaxPooling2D(2, name=f"pool{place}")(x)
    x = _dense_bn_relu(x, scaled(256, width))
    x = keras.layers.Dropout(0.4, name="dropout")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x), name="study_cnn_bn")


def build_study_cnn_se(
    *,
    classes: int,
    size: int | None,
    batch: int | None = None,
    width: float = 1.0,
    attention: str = "",
) -> Any:
    """Build the study's CNN with SE: 287,807 parameters at 64x64, 352 fixed.

    Three times a same-padded 3x3 convolution with batch norm and ReLU, pooling, and SE with ratio
    16, biases and an L2 penalty of 1e-4; then a dense layer of 64 with batch norm. The first SE
    block has a single hidden unit: the study's count leaves no other reading. See `spec.Builder`.
    """
    import keras

    image, x = input_and_scaling(size, batch, unit=True)
    for place, filters in enumerate((16, 32, 64), start=1):
        x = _conv_bn_relu(x, scaled(filters, width), f"conv{place}")
        x = keras.layers.MaxPooling2D(2, name=f"pool{place}")(x)
        if attention in ("", "se"):
            x = squeeze_excite(x, f"se{place}", ratio=16, least=1, l2=1e-4)
        else:
            x = attend(x, attention, f"attend{place}")
    x = _dense_bn_relu(x, scaled(64, width))
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x), name="study_cnn_se")


def _conv_bn_relu(x: Any, filters: int, name: str) -> Any:
    """Unlike `blocks.conv_bn_relu`, with the bias that the study's counts include."""
    import keras

    x = keras.layers.Conv2D(filters, 3, padding="same", name=name)(x)
    x = keras.layers.BatchNormalization(name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _dense_bn_relu(x: Any, units: int) -> Any:
    import keras

    x = keras.layers.Dense(units, name="dense")(keras.layers.Flatten(name="flatten")(x))
    x = keras.layers.BatchNormalization(name="dense_bn")(x)
    return keras.layers.ReLU(name="dense_relu")(x)
