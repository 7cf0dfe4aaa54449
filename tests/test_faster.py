"""Files rewritten for faster kernels answer bit for bit as before."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bloodedge.deploy.convert import export_twin
from bloodedge.deploy.flat.edit import Graph, integers
from bloodedge.deploy.flat.faster import faster
from bloodedge.deploy.flat.operators import CONV_2D, DEQUANTIZE, QUANTIZE, RESHAPE
from bloodedge.deploy.flat.options import DILATION_W, PADDING, STRIDE_W, read_slot, with_slot
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Options, Table
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.errors import ModelError
from bloodedge.quiet import quiet

SIDE = 16


def patch_net(**changes: Any) -> Any:
    """Return a net whose first layer takes patches, with other weights than its first ones."""
    import keras

    keras.utils.set_random_seed(3)
    settings = {"filters": 8, "kernel_size": 4, "strides": 4, "padding": "valid", **changes}
    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    x = keras.layers.Conv2D(activation="relu", name="stem", **settings)(x)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(4)(x))


def as_converted(model: Any, io: str = "uint8") -> bytes:
    """Return the int8 file as the converter writes it."""
    import tensorflow as tf

    images = pictures(8).astype(np.float32)
    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(export_twin(model, SIDE))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
        return bytes(converter.convert())


@pytest.fixture(scope="module")
def plain() -> bytes:
    return as_converted(patch_net())


def pictures(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def kinds(content: bytes) -> list[int]:
    model = read_model(content).model
    (table,) = model.tables("subgraphs")
    return [Graph(model, table).kind(one) for one in table.tables("operators")]


def answers(content: bytes, *, xnnpack: bool) -> NDArray[np.integer[Any]]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    found = []
    for image in pictures(64):
        pixels = image if taken["dtype"] == np.uint8 else (image.astype(np.int16) - 128)
        interpreter.set_tensor(taken["index"], pixels[None].astype(taken["dtype"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"])[0])
    return np.array(found)


@pytest.mark.parametrize("xnnpack", [True, False])
@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_the_answers_are_the_same_to_the_bit(io: str, xnnpack: bool) -> None:
    before = as_converted(patch_net(), io)
    after = faster(before)
    assert after != before
    expected = answers(before, xnnpack=xnnpack)
    assert len(np.unique(expected, axis=0)) > 10
    np.testing.assert_array_equal(answers(after, xnnpack=xnnpack), expected)


def test_patches_are_read_as_rows_and_pixels_by_way_of_float(plain: bytes) -> None:
    assert kinds(plain)[:2] == [QUANTIZE, CONV_2D]
    assert kinds(faster(plain))[:4] == [DEQUANTIZE, QUANTIZE, RESHAPE, CONV_2D]
    assert kinds(faster(plain, float_input=False))[:3] == [QUANTIZE, RESHAPE, CONV_2D]


def test_patches_need_not_be_square() -> None:
    before = as_converted(patch_net(kernel_size=(3, 2), strides=(1, 2)))
    after = faster(before)
    assert RESHAPE in kinds(after)
    np.testing.assert_array_equal(answers(after, xnnpack=True), answers(before, xnnpack=True))


def test_twice_is_once(plain: bytes) -> None:
    once = faster(plain)
    assert faster(once) is once


def edited(content: bytes, change: Callable[[Graph, Table], None]) -> bytes:
    """Return the file with its first convolution changed."""
    model = read_model(content).model
    graph = Graph(model, model.tables("subgraphs")[0])
    conv = next(one for one in graph.table.tables("operators") if graph.kind(one) == CONV_2D)
    change(graph, conv)
    return write_tables(model)


@pytest.mark.parametrize(
    "layer",
    [
        {"strides": 2},  # patches overlap
        {"kernel_size": 3, "strides": 3},  # 16 pixels are not a whole number of patches
        {"padding": "same", "kernel_size": 5, "strides": 5},  # padded
        {"kernel_size": 1, "strides": 1},
    ],
)
def test_other_convolutions_stay(layer: dict[str, Any]) -> None:
    assert RESHAPE not in kinds(faster(as_converted(patch_net(**layer))))


def test_a_kernel_that_two_convolutions_share_stays(plain: bytes) -> None:
    def share(graph: Graph, conv: Table) -> None:
        graph.insert_before(conv, Table("Operator", dict(conv.fields)))

    assert RESHAPE not in kinds(faster(edited(plain, share)))


def test_input_of_another_scale_stays(plain: bytes) -> None:
    def rescale(graph: Graph, conv: Table) -> None:
        quantization = graph.tensor(conv.numbers("inputs")[0]).fields["quantization"]
        assert isinstance(quantization, Table)
        scale = quantization.vector("scale")
        assert scale is not None
        quantization.fields["scale"] = replace(scale, data=struct.pack("<f", 0.5))

    assert DEQUANTIZE not in kinds(faster(edited(plain, rescale)))


def test_float_files_stay() -> None:
    import tensorflow as tf

    with quiet():
        content = bytes(
            tf.lite.TFLiteConverter.from_keras_model(export_twin(patch_net(), SIDE)).convert()
        )
    assert faster(content) is content


def test_a_damaged_graph_is_told(plain: bytes) -> None:
    def lose(graph: Graph, conv: Table) -> None:
        conv.fields["inputs"] = integers(9999, *conv.numbers("inputs")[1:])

    with pytest.raises(ModelError, match="no tensor 9999"):
        faster(edited(plain, lose))


def test_options_are_read_and_changed_in_place(plain: bytes) -> None:
    def look(_: Graph, conv: Table) -> None:
        options = conv.fields["builtin_options"]
        assert isinstance(options, Options)
        assert [read_slot(options, s) for s in (PADDING, STRIDE_W, DILATION_W)] == [1, 4, 1]
        changed = with_slot(options, STRIDE_W, 1)
        assert [read_slot(changed, s) for s in (PADDING, STRIDE_W, DILATION_W)] == [1, 1, 1]
        with pytest.raises(ModelError, match="no slot 0"):
            with_slot(Options(struct.pack("<HHH", 6, 4, 0), b""), PADDING, 1)

    edited(plain, look)
