"""The part of TFLite's flatbuffer schema that an image classifier uses, slot by slot.

Written out instead of generated because reading, mapping and writing need the layout as data; a
test compares every slot with the schema that ships in ai-edge-litert. What is not listed here
(sparse tensors, external buffers, StableHLO options) is refused, never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

IDENTIFIER = b"TFL3"
# Buffers start at multiples of this: `force_align` in the schema.
DATA_ALIGNMENT = 16


@dataclass(frozen=True)
class Field:
    """One slot of a table.

    Attributes:
        name: as in the schema, snake case.
        kind: `scalar`, `vector` (of scalars), `text`, `table`, `tables` (a vector of them),
            `options` (a table without offsets, copied as it is) or `ignored`.
        width: bytes of a scalar, or of a vector's element.
        table: the kind of table that a `table` or `tables` field leads to.
        default: of a scalar; a field with this value need not be stored.
    """

    name: str
    kind: str
    width: int = 4
    table: str = ""
    default: int = 0

    @property
    def width_inline(self) -> int:
        """Bytes the field takes in its table: a scalar's own, or those of an offset."""
        return self.width if self.kind == "scalar" else 4


def scalar(name: str, width: int, default: int = 0) -> Field:
    """Return a number stored in its table."""
    return Field(name, "scalar", width, default=default)


def vector(name: str, width: int) -> Field:
    """Return a vector of numbers."""
    return Field(name, "vector", width)


def text(name: str) -> Field:
    """Return a text."""
    return Field(name, "text", 1)


def tables(name: str, table: str) -> Field:
    """Return a vector of tables of one kind."""
    return Field(name, "tables", table=table)


# None: a slot that is refused when a file uses it.
TABLES: Mapping[str, tuple[Field | None, ...]] = {
    "Model": (
        scalar("version", 4),
        tables("operator_codes", "OperatorCode"),
        tables("subgraphs", "SubGraph"),
        text("description"),
        tables("buffers", "Buffer"),
        vector("metadata_buffer", 4),
        tables("metadata", "Metadata"),
        tables("signature_defs", "SignatureDef"),
        None,
        None,
    ),
    "OperatorCode": (
        scalar("deprecated_builtin_code", 1),
        text("custom_code"),
        scalar("version", 4, default=1),
        scalar("builtin_code", 4),
    ),
    "SubGraph": (
        tables("tensors", "Tensor"),
        vector("inputs", 4),
        vector("outputs", 4),
        tables("operators", "Operator"),
        text("name"),
        scalar("debug_metadata_index", 4, default=-1),
    ),
    "Tensor": (
        vector("shape", 4),
        scalar("type", 1),
        scalar("buffer", 4),
        text("name"),
        Field("quantization", "table", table="QuantizationParameters"),
        scalar("is_variable", 1),
        None,
        vector("shape_signature", 4),
        scalar("has_rank", 1),
        None,
        None,
    ),
    "QuantizationParameters": (
        vector("min", 4),
        vector("max", 4),
        vector("scale", 4),
        vector("zero_point", 8),
        None,
        None,
        scalar("quantized_dimension", 4),
    ),
    "Operator": (
        scalar("opcode_index", 4),
        vector("inputs", 4),
        vector("outputs", 4),
        scalar("builtin_options_type", 1),
        Field("builtin_options", "options"),
        vector("custom_options", 1),
        scalar("custom_options_format", 1),
        vector("mutating_variable_inputs", 1),
        vector("intermediates", 4),
        None,
        None,
        None,
        None,
        scalar("debug_metadata_index", 4, default=-1),
    ),
    "Buffer": (vector("data", 1), None, None),
    "Metadata": (text("name"), scalar("buffer", 4)),
    "SignatureDef": (
        tables("inputs", "TensorMap"),
        tables("outputs", "TensorMap"),
        text("signature_key"),
        None,
        scalar("subgraph_index", 4),
    ),
    "TensorMap": (text("name"), scalar("tensor_index", 4)),
    # The two common options that hold a vector.
    "ReshapeOptions": (vector("new_shape", 4),),
    "SqueezeOptions": (vector("squeeze_dims", 4),),
}

# Members of the union BuiltinOptions with a table above.
OPTION_TABLES = {17: "ReshapeOptions", 30: "SqueezeOptions"}
# Members with offsets, or with 8-byte fields, that are refused: ConcatEmbeddings, VarHandle,
# Random, Bucketize.
REFUSED_OPTIONS = frozenset({3, 111, 114, 115})
LAST_OPTION = 126
# FullyConnectedOptions.quant_spec, the only offset in options that are otherwise plain.
FULLY_CONNECTED_OPTIONS, QUANT_SPEC_SLOT = 8, 5
