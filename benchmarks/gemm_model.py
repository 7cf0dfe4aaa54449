"""The two models that `runner.py` carries: one large matrix product, in int8 and in float32.

    python -m bloodedge.benchmarks.gemm_model

NumPy has no int8 matrix product, and its float32 one may be slow, depending on how it was built. So
the runner also times the runtime's own kernels, on one FULLY_CONNECTED layer with zeros for
weights, which compress to nothing and take the dense kernels as long as any other. This prints
what stands in the runner as `GEMM`.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

ROWS, INPUTS, OUTPUTS = 256, 512, 512
_WIDTH = 88


def gemm_model(kind: str) -> bytes:
    """Return a .tflite of one dense layer, `(256, 512)` by `(512, 512)`: 67,108,864 MACs.

    Args:
        kind: `int8` or `float32`.
    """
    import flatbuffers  # type: ignore[import-untyped]
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    integer = kind == "int8"
    value = schema.TensorType.INT8 if integer else schema.TensorType.FLOAT32
    sum_type = schema.TensorType.INT32 if integer else schema.TensorType.FLOAT32
    width = 1 if integer else 4
    model = schema.ModelT()
    model.version, model.description = 3, "gemm"
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4 if integer else 1
    model.operatorCodes = [code]
    sizes = (0, 0, OUTPUTS * INPUTS * width, OUTPUTS * 4, 0)
    model.buffers = [_buffer(schema, np.zeros(size, np.uint8)) for size in sizes]
    # A sum of 512 products of zeros fits any scale of the output.
    tensors = (
        ("a", (ROWS, INPUTS), value, 1, 1 / 128),
        ("b", (OUTPUTS, INPUTS), value, 2, 1 / 128),
        ("c", (OUTPUTS,), sum_type, 3, 1 / 128**2),
        ("d", (ROWS, OUTPUTS), value, 4, 1 / 128),
    )
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(schema, tensor, integer) for tensor in tensors]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1, 2], [3]
    operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    operator.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators, graph.inputs, graph.outputs = [operator], [0], [3]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _buffer(schema: Any, data: Any) -> Any:
    buffer = schema.BufferT()
    buffer.data = data if len(data) else None
    return buffer


def _tensor(schema: Any, given: tuple[str, tuple[int, ...], int, int, float], integer: bool) -> Any:
    name, shape, kind, place, scale = given
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), kind, place
    if integer:
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    return tensor


def packed(kind: str) -> str:
    """Return the model as the runner holds it: compressed twice, since it is mostly zeros."""
    once = zlib.compress(gemm_model(kind), 9)
    return base64.b85encode(zlib.compress(once, 9)).decode("ascii")


def main() -> None:
    """Print the runner's `GEMM`."""
    print("GEMM = {")
    for kind in ("int8", "float32"):
        print(f'    "{kind}": (')
        text = packed(kind)
        for start in range(0, len(text), _WIDTH):
            print(f'        "{text[start : start + _WIDTH]}"')
        print("    ),")
    print("}")


if __name__ == "__main__":
    main()
