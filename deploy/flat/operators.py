"""Operators and types of a .tflite, by the numbers of its schema."""

from __future__ import annotations

from collections.abc import Sequence

from bloodedge.deploy.flat.tree import Table
from bloodedge.errors import ModelError

# Of BuiltinOperator.
CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE, FULLY_CONNECTED = 3, 4, 6, 9
RESHAPE, TRANSPOSE_CONV, QUANTIZE = 22, 67, 114
# Of TensorType.
FLOAT32, UINT8, INT16, INT8 = 0, 3, 7, 9


def operator_kind(code: Table) -> int:
    """Return an operator's builtin code; older files hold it in a byte of its own."""
    return max(code.number("builtin_code"), code.number("deprecated_builtin_code"))


def code_of(operator: Table, codes: Sequence[Table]) -> Table:
    """Return the code of an operator, from those of its model.

    Raises:
        ModelError: it refers to one that is not there.
    """
    index = operator.number("opcode_index")
    if not 0 <= index < len(codes):
        raise ModelError(f"the model is damaged: it has no operator code {index}")
    return codes[index]
