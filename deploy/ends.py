"""The one input and the one output of a classifier, as code that calls it needs to know them."""

from __future__ import annotations

from dataclasses import dataclass

from bloodedge.deploy.flat.operators import FLOAT32, INT8, INT16, UINT8
from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Table
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.errors import ModelError

INPUT, OUTPUT = "image", "probabilities"
_TYPES = {FLOAT32: "float32", UINT8: "uint8", INT8: "int8", INT16: "int16"}


@dataclass(frozen=True)
class End:
    """A tensor at one end of the graph.

    Attributes:
        name: as in the file.
        dtype: float32, uint8, int8 or int16.
        shape: its dimensions.
        scale: real = scale * (stored - zero_point); None where it is not quantized.
        zero_point: 0 where it is not quantized.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int = 0


def read_ends(content: bytes) -> tuple[End, End]:
    """Return the input and the output of a .tflite.

    Raises:
        ModelError: the file is damaged, or has other than one input and one output of those types.
    """
    (graph, *_) = read_model(content).model.tables("subgraphs") or [Table("SubGraph")]
    return _end(graph, "inputs"), _end(graph, "outputs")


def _end(graph: Table, side: str) -> End:
    tensor = _tensor(graph, side)
    dtype = _TYPES.get(tensor.number("type"))
    if dtype is None:
        raise ModelError(
            f"the model's {side} are of type {tensor.number('type')}",
            expected=", ".join(_TYPES.values()),
        )
    scale, zero = None, 0
    quantization = tensor.table("quantization")
    scales = quantization.vector("scale") if quantization is not None else None
    if quantization is not None and scales is not None and len(scales.data):
        scale = float(memoryview(bytes(scales.data)).cast("f")[0])
        zero = (quantization.numbers("zero_point") or (0,))[0]
    return End(tensor.text("name"), dtype, tensor.numbers("shape"), scale, zero)


def _tensor(graph: Table, side: str) -> Table:
    index, tensors = graph.numbers(side), graph.tables("tensors")
    if len(index) != 1 or not 0 <= index[0] < len(tensors):
        raise ModelError(f"the model has {len(index)} {side}", expected="one")
    return tensors[index[0]]


def name_ends(content: bytes) -> bytes:
    """Return the .tflite with its ends called `INPUT` and `OUTPUT`, in its signature as well.

    The converter's own names (`serving_default_image:0`) tell an app developer nothing, and one
    text for tensor and signature is stored once.

    Raises:
        ModelError: as `read_ends`.
    """
    model = read_model(content).model
    (graph, *_) = model.tables("subgraphs") or [Table("SubGraph")]
    for side, name in (("inputs", INPUT), ("outputs", OUTPUT)):
        _tensor(graph, side).set_text("name", name)
        for signature in model.tables("signature_defs"):
            for entry in signature.tables(side):
                entry.set_text("name", name)
    return write_tables(model)
