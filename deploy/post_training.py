"""Post-training int8: the converter's float model, our ranges, and layers left in float."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.calibration import pinned
from bloodedge.deploy.ranges import RangeConfig, Ranges, measure
from bloodedge.deploy.runtimes import find_runtime
from bloodedge.errors import ConfigError

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL")
_GAIN_IMAGES = 32


def calibrated(
    converter: Any, images: NDArray[np.uint8], config: RangeConfig, *, batch: int = 1
) -> bytes:
    """Return the float .tflite with a range for every tensor.

    The converter's own calibrator, run on one image, only prepares the file: see
    `bloodedge.deploy.ranges`.

    Args:
        converter: a TFLiteConverter, set to int8.
        images: `(N, S, S, 3)` calibration images.
        config: how ranges are chosen.
        batch: images an inference takes.
    """
    first = pinned(images[:1]).repeat(batch, axis=0)
    converter.representative_dataset = lambda: iter([[first]])
    converter._experimental_calibrate_only = True
    content = bytes(converter.convert())
    return with_ranges(content, measure(content, images, config))


def with_ranges(content: bytes, ranges: Ranges) -> bytes:
    """Return a float .tflite with these ranges, by tensor index, in place of its own."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    for index, (low, high) in ranges.items():
        tensor = model.subgraphs[0].tensors[index]
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = [low], [high]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def to_int8(content: bytes, keep_float: Collection[str] = (), *, io: str = "uint8") -> bytes:
    """Return a float .tflite with ranges as int8.

    Args:
        content: what `calibrated` gives.
        keep_float: the names of the outputs of operations to leave in float.
        io: the type of what it takes and gives.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    return bytes(
        mlir_quantize(
            content,
            input_data_type=tf.as_dtype(io),
            output_data_type=tf.as_dtype(io),
            denylisted_nodes=set(keep_float) or None,
        )
    )


def to_mixed(
    content: bytes, images: NDArray[np.uint8], float_layers: int | None, *, io: str = "uint8"
) -> bytes:
    """Return int8 with those layers left in float that gain most by it.

    Args:
        content: what `calibrated` gives.
        images: `(N, S, S, 3)`; the gain is measured on up to `_GAIN_IMAGES` of them.
        float_layers: how many stay in float; by default a tenth, at least one.
        io: the type of what it takes and gives.

    Raises:
        ConfigError: there are fewer layers.
    """
    layers = len(_layers(content))
    if (float_layers or 0) > layers:
        raise ConfigError(f"--float-layers {float_layers}", expected=f"at most {layers}")
    gains = gain_of_float(content, images)
    count = float_layers or max(1, round(len(gains) / 10))
    best = sorted(gains, key=lambda name: -gains[name])[:count]
    return to_int8(content, best, io=io)


def gain_of_float(content: bytes, images: NDArray[np.uint8]) -> dict[str, float]:
    """Return by how much less the probabilities change if one layer stays float, by its output.

    Layers are the operations with weights; the change is the mean absolute one against the float
    model.
    """
    step = max(1, len(images) // _GAIN_IMAGES)
    shown = images[::step][:_GAIN_IMAGES]
    plain = _answers(content, shown)

    def change(kept: Collection[str]) -> float:
        return float(np.abs(_answers(to_int8(content, kept), shown) - plain).mean())

    whole = change(())
    return {name: whole - change([name]) for name in _layers(content)}


def _layers(content: bytes) -> list[str]:
    """Return the names of the outputs of the operations with weights."""
    interpreter = find_runtime().interpreter(model_content=content)
    names = {d["index"]: str(d["name"]) for d in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    return [names[op["outputs"][0]] for op in operations if op["op_name"] in _WEIGHTED]


def _answers(content: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    interpreter = find_runtime().interpreter(model_content=content)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = given["quantization"]
    rows = []
    for image in images:
        same = np.broadcast_to(image.astype(taken["dtype"]), taken["shape"])
        interpreter.set_tensor(taken["index"], same)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0])
    # A float output has neither scale nor zero point.
    real: NDArray[np.float32] = (np.stack(rows).astype(np.float32) - zero) * np.float32(scale or 1)
    return real
