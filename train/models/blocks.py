"""Blocks the models share. Layers are named, so that exports and reports can name them too."""

from __future__ import annotations

from typing import Any

from bloodedge.errors import ConfigError


def input_and_scaling(
    size: int | None, batch: int | None, *, unit: bool = False
) -> tuple[Any, Any]:
    """Return the input of pixel values 0..255 and the same scaled to [-1, 1], or [0, 1] if `unit`.

    Scaling lives in the model so that training, TFLite, Android and a browser cannot disagree.
    """
    import keras

    image = keras.Input(batch_shape=(batch, size, size, 3), name="image")
    scale, offset = (1 / 255, 0.0) if unit else (1 / 127.5, -1.0)
    return image, keras.layers.Rescaling(scale, offset=offset, name="scale")(image)


def conv_bn_relu(x: Any, filters: int, name: str, *, kernel: int = 3, stride: int = 1) -> Any:
    """Apply `conv_bn` and ReLU."""
    import keras

    x = conv_bn(x, filters, name, kernel=kernel, stride=stride)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def conv_bn(
    x: Any, filters: int, name: str, *, kernel: int = 3, stride: int = 1, bias: bool = False
) -> Any:
    """Apply a same-padded convolution (He initialisation) and batch norm."""
    import keras

    x = keras.layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=bias,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # The running statistics must keep up within an epoch of a few hundred steps, which Keras'
    # default of 0.99 does not.
    return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(x)


def squeeze_excite(x: Any, name: str, *, ratio: int = 8, least: int = 4, l2: float = 0.0) -> Any:
    """Reweigh channels by a gate computed from their means (Hu et al. 2018, SE).

    The two dense layers are 1x1 convolutions on a (N, 1, 1, C) mean, which TFLite runs without
    reshaping.

    Args:
        x: `(N, H, W, C)`.
        name: starts the layers' names.
        ratio: C / ratio units are hidden,
        least: but no fewer than these.
        l2: L2 penalty on both kernels.
    """
    import keras

    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    hidden = max(least, int(x.shape[-1]) // ratio)
    gate = _bottleneck(gate, hidden, name, l2=l2, activation="sigmoid")
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])


def channel_gate(x: Any, name: str, *, hidden: int) -> Any:
    """Reweigh channels by a gate computed from their means and maxima (CBAM's first half).

    `sigmoid(mlp(mean) + mlp(max))`. Both go through the shared layers at once, stacked along the
    height: a layer that is called twice is one that quantization-aware training refuses.
    """
    import keras

    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    peak = keras.layers.GlobalMaxPooling2D(keepdims=True, name=f"{name}_max")(x)
    gate = keras.layers.Concatenate(axis=1, name=f"{name}_both")([mean, peak])
    gate = _bottleneck(gate, hidden, name, l2=0.0, activation=None)
    gate = keras.ops.sum(gate, axis=1, keepdims=True)
    gate = keras.layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])


def spatial_gate(x: Any, name: str) -> Any:
    """Reweigh positions by a gate computed from each one's mean and maximum (CBAM's second half).

    `sigmoid(conv7x7([mean, max]))`, without a bias, as in the authors' code.
    """
    import keras

    mean = keras.ops.mean(x, axis=-1, keepdims=True)
    peak = keras.ops.max(x, axis=-1, keepdims=True)
    gate = keras.layers.Concatenate(name=f"{name}_both")([mean, peak])
    gate = keras.layers.Conv2D(
        1, 7, padding="same", use_bias=False, activation="sigmoid", name=f"{name}_conv"
    )(gate)
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])


def cbam(x: Any, name: str) -> Any:
    """Apply CBAM (Woo et al. 2018): first the channel gate, then the spatial one."""
    hidden = max(4, int(x.shape[-1]) // 16)
    return spatial_gate(channel_gate(x, f"{name}_channel", hidden=hidden), f"{name}_spatial")


def attend(x: Any, kind: str, name: str) -> Any:
    """Apply what `--attention` names: `none` (or nothing), `se` or `cbam`.

    Raises:
        ConfigError: another name.
    """
    if kind in ("", "none"):
        return x
    if kind == "se":
        return squeeze_excite(x, name, ratio=16)
    if kind == "cbam":
        return cbam(x, name)
    raise ConfigError(f"unknown attention {kind!r}", expected="none, se or cbam")


def _bottleneck(x: Any, hidden: int, name: str, *, l2: float, activation: str | None) -> Any:
    """Apply two dense layers over the channels, as 1x1 convolutions, back to as many."""
    import keras

    def dense(units: int, activation: str | None, name: str) -> Any:
        penalty = keras.regularizers.L2(l2) if l2 else None
        return keras.layers.Conv2D(
            units, 1, activation=activation, kernel_regularizer=penalty, name=name
        )

    channels = int(x.shape[-1])
    return dense(channels, activation, f"{name}_b")(dense(hidden, "relu", f"{name}_a")(x))


def logits_head(x: Any, classes: int, dropout: float) -> Any:
    """Pool globally, drop out, and map to logits; the softmax is added at export."""
    import keras

    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, name="logits")(x)


def scaled(channels: int, width: float) -> int:
    """Multiply a channel count by `width`, to a multiple of 4 and at least 4."""
    return max(4, round(channels * width / 4) * 4)
