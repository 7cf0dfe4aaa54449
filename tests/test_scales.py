"""Why int8 files keep a scale and a zero point for every channel: what happens without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from numpy.typing import NDArray

from bloodedge.deploy.flat.bytemap import map_bytes
from bloodedge.deploy.flat.edit import Graph, quantization
from bloodedge.deploy.flat.operators import CONV_2D, FULLY_CONNECTED
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Table, Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.quiet import quiet
from bloodedge.references import packaged_zoo

Change = Callable[[Table, Table], None]


@pytest.fixture(scope="module")
def student() -> bytes:
    (path,) = (packaged_zoo() / "cnn_se").glob("*.tflite")
    return path.read_bytes()


def changed(content: bytes, change: Change) -> bytes:
    """The model with each pair of weights and bias changed."""
    model = read_model(content).model
    for weights, bias in pairs(model):
        change(weights, bias)
    return write_tables(model)


def pairs(model: Table) -> Iterator[tuple[Table, Table]]:
    graph = Graph(model, model.tables("subgraphs")[0])
    for operator in graph.table.tables("operators"):
        if graph.kind(operator) in (CONV_2D, FULLY_CONNECTED):
            _, weights, bias = operator.numbers("inputs")
            yield graph.tensor(weights), graph.tensor(bias)


def parameters(tensor: Table) -> Table:
    found = tensor.table("quantization")
    assert found is not None
    return found


def one_zero_point(weights: Table, bias: Table) -> None:
    for tensor in (weights, bias):
        parameters(tensor).fields["zero_point"] = Vector(bytes(8), 8)


def no_scales(weights: Table, bias: Table) -> None:
    bias.drop("quantization")


def one_scale(weights: Table, bias: Table) -> None:
    scales, _ = quantization(bias)
    parameters(bias).fields["scale"] = Vector(scales[:4], 4)
    parameters(bias).fields["zero_point"] = Vector(bytes(8), 8)


def scales_of_weights(weights: Table, bias: Table) -> None:
    bias.fields["quantization"] = parameters(weights)


def answers(content: bytes) -> tuple[NDArray[np.uint8], int]:
    """What LiteRT answers to noise, and into how many parts XNNPACK's share falls."""
    with quiet():
        interpreter: Any = litert.Interpreter(model_content=content)
        interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    rows = []
    for seed in range(8):
        image = np.random.default_rng(seed).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
        interpreter.set_tensor(taken["index"], image)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(given["index"])[0])
    names = [operation["op_name"] for operation in interpreter._get_ops_details()]
    return np.stack(rows), names.count("DELEGATE")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_zero_point, "1 zero_point values and 8 scale values. Must have same number"),
        (one_scale, "failed to delegate CONV_2D"),
    ],
)
def test_the_runtime_refuses_fewer(student: bytes, change: Change, message: str) -> None:
    content = changed(student, change)
    assert len(content) < len(student) - 500
    with pytest.raises((ValueError, RuntimeError), match=message):
        answers(content)


def test_a_bias_without_scales_is_left_out_by_the_fast_kernels(student: bytes) -> None:
    before, parts = answers(student)
    after, more = answers(changed(student, no_scales))
    np.testing.assert_array_equal(after, before)
    assert parts == 1 < more


def test_the_weights_scales_would_save_a_kilobyte_and_mislead_a_gpu(student: bytes) -> None:
    """Processors compute with the product of the scales of input and weights, GPUs with this."""
    content = changed(student, scales_of_weights)
    np.testing.assert_array_equal(answers(content)[0], answers(student)[0])
    assert 1000 < len(student) - len(content) < 1600
    assert map_bytes(content).above_floor > 0
    factors = [
        np.frombuffer(quantization(bias)[0], "f4") / np.frombuffer(quantization(other)[0], "f4")
        for (_, bias), (_, other) in zip(
            pairs(read_model(student).model), pairs(read_model(content).model), strict=True
        )
    ]
    # The stem's input, pixels, has the scale 1; every other bias would be off by its input's.
    assert np.allclose(factors[0], 1)
    assert max(factor.max() for factor in factors[1:]) < 0.5
