"""A Keras model with logits to a .tflite with probabilities, in one of several variants."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.graph import without_idle_padding
from bloodedge.data.calibration import pinned
from bloodedge.deploy.converter_errors import unknown_operation
from bloodedge.deploy.flat.faster import faster
from bloodedge.deploy.post_training import calibrated, to_int8, to_mixed
from bloodedge.deploy.ranges import MINMAX, RangeConfig
from bloodedge.errors import ConfigError, ModelError, in_words
from bloodedge.quiet import quiet

# What each variant stores; all take pixel values 0..255 and end in softmax.
VARIANTS = {
    "float32": "float32 throughout",
    "float16": "float16 weights, float32 arithmetic",
    "dynamic": "int8 weights, float32 activations, no calibration",
    "int8": "int8 throughout, uint8 in and out",
}
# Made only when asked for.
ON_REQUEST = {
    "int16x8": "int8 weights, int16 activations, float32 in and out",
    "mixed": "int8 with the layers that it harms most left in float32, uint8 in and out",
}
ALL_VARIANTS = VARIANTS | ON_REQUEST
# More than TensorFlow writes while it converts.
_TEMPORARY_BYTES = 1 << 16

# What the inputs and outputs of int8 may be.
IO_TYPES = ("uint8", "int8", "float32")


def convert(
    model: Any,
    variant: str,
    calibration: NDArray[np.uint8],
    *,
    batch: int = 1,
    io: str = "uint8",
    ranges: RangeConfig = MINMAX,
    float_layers: int | None = None,
    float_input: bool = True,
) -> bytes:
    """Return the .tflite of one variant, with a static batch and softmax at the end.

    Args:
        model: a Keras model on TensorFlow: `(N, S, S, 3)` pixel values in, `(N, C)` logits out.
        variant: one of `ALL_VARIANTS`.
        calibration: `(M, S, S, 3)` uint8 images; int8, mixed and int16x8 take their ranges from
            them, the others only S.
        batch: images an inference takes.
        io: of `IO_TYPES`, the type of what int8 and mixed take and give; LiteRT.js knows uint8,
            not int8.
        ranges: how int8 and mixed choose the ranges of activations.
        float_layers: how many layers mixed leaves in float; by default a tenth.
        float_input: whether int8 and mixed may spend memory on time, see
            `bloodedge.deploy.flat.faster`.

    Raises:
        ConfigError: an unknown variant, no calibration image, or Keras on another backend.
        ModelError: the converter refuses the model; an operation that TFLite lacks is named with
            its layer.
    """
    import keras

    if variant not in ALL_VARIANTS:
        raise ConfigError(f"unknown variant {variant!r}", expected=", ".join(ALL_VARIANTS))
    if len(calibration) == 0:
        raise ConfigError("no calibration images")
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"the TFLite converter needs TensorFlow, Keras runs on {keras.backend.backend()}",
            fix="start a new process with KERAS_BACKEND=tensorflow",
        )
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            twin = export_twin(model, int(calibration.shape[1]), batch)
            converter = _converter(twin, variant, calibration)
            if variant not in ("int8", "mixed"):
                return bytes(converter.convert())
            content = calibrated(converter, calibration, ranges, batch=batch)
            if variant == "int8":
                content = to_int8(content, io=io)
            else:
                content = to_mixed(content, calibration, float_layers, io=io)
            return faster(content, float_input=float_input)
    except ConfigError:
        raise
    # The converter raises whatever MLIR, Keras or the calibrator meet.
    except Exception as error:
        operation, layer = unknown_operation(model, str(error))
        if operation:
            raise ModelError(
                f"the conversion to {variant} failed: TFLite has no {operation}, which "
                + (f"the layer {layer} needs" if layer else "the model needs"),
                expected="layers made of operations that TFLite has",
                fix="replace it; TF Select would support it, on runtimes that carry TensorFlow",
            ) from error
        _check_temporary_folder()
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the conversion to {variant} failed: {lines[0][:300]}",
            fix=f"leave {variant} out of --variants",
        ) from error


def _check_temporary_folder() -> None:
    """Refuse a full one: TensorFlow writes into it, and fails by errors that name nothing of it."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_TEMPORARY_BYTES))
    except OSError as error:
        raise ConfigError(
            f"TensorFlow cannot write its temporary files: {in_words(error)}",
            fix="free space there, or set TMPDIR to another folder",
        ) from error


def export_twin(model: Any, size: int, batch: int = 1) -> Any:
    """Return the model with a static `(batch, size, size, 3)` input and softmax at the end.

    LiteRT.js needs the static batch; browsers and phones expect probabilities.
    """
    import keras

    image = keras.Input(batch_shape=(batch, size, size, 3), name="image")
    logits = without_idle_padding(model)(image)
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(logits), name="export")


def _converter(twin: Any, variant: str, calibration: NDArray[np.uint8]) -> Any:
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
    elif variant == "int16x8":
        batch = int(twin.input_shape[0])
        converter.representative_dataset = lambda: (
            [image[None].repeat(batch, axis=0)] for image in pinned(calibration)
        )
        converter.target_spec.supported_ops = [_int16x8()]
    else:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter


def _int16x8() -> Any:
    import tensorflow as tf

    return tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
