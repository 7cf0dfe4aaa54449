"""Blocks the models share. Layers are named, so that exports and reports can name them too."""

from __future__ import annotations

from typing import Any


def input_and_scaling(size: int | None, batch: int | None) -> tuple[Any, Any]:
    """Return the input of pixel values 0..255 and the same scaled to [-1, 1].

    Scaling lives in the model so that training, TFLite, Android and a browser cannot disagree.
    """
    import keras

    image = keras.Input(batch_shape=(batch, size, size, 3), name="image")
    return image, keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")(image)


def conv_bn_relu(x: Any, filters: int, name: str, *, kernel: int = 3, stride: int = 1) -> Any:
    """Apply a same-padded convolution without bias, batch norm and ReLU (He initialisation)."""
    import keras

    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # The running statistics must keep up within an epoch of a few hundred steps, which Keras'
    # default of 0.99 does not.
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def squeeze_excite(x: Any, name: str, *, ratio: int = 8) -> Any:
    """Reweigh channels by a gate computed from their means (Hu et al. 2018, SE).

    The two dense layers are 1x1 convolutions on a (N, 1, 1, C) mean, which TFLite runs without
    reshaping.
    """
    import keras

    channels = int(x.shape[-1])
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    gate = keras.layers.Conv2D(max(4, channels // ratio), 1, activation="relu", name=f"{name}_a")(
        gate
    )
    gate = keras.layers.Conv2D(channels, 1, activation="sigmoid", name=f"{name}_b")(gate)
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])


def logits_head(x: Any, classes: int, dropout: float) -> Any:
    """Pool globally, drop out, and map to logits; the softmax is added at export."""
    import keras

    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, name="logits")(x)


def scaled(channels: int, width: float) -> int:
    """Multiply a channel count by `width`, to a multiple of 4 and at least 4."""
    return max(4, round(channels * width / 4) * 4)
