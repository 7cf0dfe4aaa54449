"""A Keras model with logits to a .tflite with probabilities, in one of four variants."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.deploy.dead import without_dead_layers
from bloodedge.errors import ConfigError, ModelError
from bloodedge.quiet import quiet

# What each variant stores; all take pixel values 0..255 and end in softmax.
VARIANTS = {
    "float32": "float32 throughout",
    "float16": "float16 weights, float32 arithmetic",
    "dynamic": "int8 weights, float32 activations, no calibration",
    "int8": "int8 throughout, uint8 in and out",
}


# What the inputs and outputs of int8 may be.
IO_TYPES = ("uint8", "int8", "float32")


def convert(
    model: Any,
    variant: str,
    calibration: NDArray[np.uint8],
    *,
    batch: int = 1,
    io: str = "uint8",
) -> bytes:
    """Return the .tflite of one variant, with a static batch and softmax at the end.

    Args:
        model: a Keras model on TensorFlow: `(N, S, S, 3)` pixel values in, `(N, C)` logits out.
        variant: one of `VARIANTS`.
        calibration: `(M, S, S, 3)` uint8 images; int8 takes its ranges from them, the others
            only S.
        batch: images an inference takes.
        io: of `IO_TYPES`, the type of int8's inputs and outputs; LiteRT.js knows uint8, not int8.

    Raises:
        ConfigError: an unknown variant, no calibration image, or Keras on another backend.
        ModelError: the converter refuses the model.
    """
    import keras

    if variant not in VARIANTS:
        raise ConfigError(f"unknown variant {variant!r}", expected=", ".join(VARIANTS))
    if len(calibration) == 0:
        raise ConfigError("no calibration images")
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"the TFLite converter needs TensorFlow, Keras runs on {keras.backend.backend()}",
            fix="export with --backend tensorflow",
        )
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if variant == "int8":
                model = without_dead_layers(model, calibration)
            twin = export_twin(model, int(calibration.shape[1]), batch)
            return bytes(_converter(twin, variant, calibration, io).convert())
    # The converter raises whatever MLIR, Keras or the calibrator meet.
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"the conversion to {variant} failed: {lines[0][:300]}") from error


def export_twin(model: Any, size: int, batch: int = 1) -> Any:
    """Return the model with a static `(batch, size, size, 3)` input and softmax at the end.

    LiteRT.js needs the static batch; browsers and phones expect probabilities.
    """
    import keras

    image = keras.Input(batch_shape=(batch, size, size, 3), name="image")
    logits = without_idle_padding(model)(image)
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(logits), name="export")


def without_idle_padding(model: Any) -> Any:
    """Return the model with `same` written `valid` in convolutions where it pads nothing.

    The result computes the same. But the converter folds the scaling in front of a convolution
    (a MUL and an ADD on every pixel) into its weights only if that is `valid`: with zero padding
    the offset would be missing at the borders.
    """
    import keras

    idle = {layer.name for layer in model.layers if _pads_nothing(layer)}
    if not idle or type(model).__name__ not in ("Functional", "Sequential"):
        return model

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in idle:
            config["padding"] = "valid"
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def _pads_nothing(layer: Any) -> bool:
    import keras

    if not isinstance(layer, keras.layers.Conv2D) or layer.padding != "same":
        return False
    sides = layer.input.shape[1:3]
    windows = zip(sides, layer.kernel_size, layer.strides, layer.dilation_rate, strict=True)
    return all(
        side is not None and (-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 <= side
        for side, kernel, stride, dilation in windows
    )


def _converter(twin: Any, variant: str, calibration: NDArray[np.uint8], io: str) -> Any:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(twin)
    if variant == "float32":
        return converter
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif variant == "dynamic":
        # tflite-runtime 2.14 refuses per-channel dense layers (FULLY_CONNECTED version 12).
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    else:
        batch = int(twin.input_shape[0])
        converter.representative_dataset = lambda: _representative(calibration, batch)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.as_dtype(io)
        converter.inference_output_type = tf.as_dtype(io)
    return converter


def _representative(
    calibration: NDArray[np.uint8], batch: int
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield one image at a time, repeated to fill the batch.

    The first has a black and a white value in its corner: they pin the input's range to 0..255,
    hence its scale to 1 and its zero point to 0 of uint8. Then a pixel's byte is its quantized
    value, whatever the brightest pixel of the draw.
    """
    for i, image in enumerate(calibration):
        pixels = image.astype(np.float32)[None]
        if i == 0:
            pixels[0, 0, 0, :2] = 0.0, 255.0
        yield [pixels.repeat(batch, axis=0)]
