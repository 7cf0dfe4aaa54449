"""The part of TFLite's metadata schema (`M001`) that Android Studio, ML Kit and MediaPipe read.

https://ai.google.dev/edge/litert/models/metadata: a flatbuffer of its own in a buffer of the model.
`Any...` is how a block from elsewhere is read: its texts, and nothing below them.
"""

from __future__ import annotations

from collections.abc import Mapping

from bloodedge.deploy.flat.schema import Field, scalar, tables, text, vector

IDENTIFIER = b"M001"

_HEAD = (
    text("name"),
    text("description"),
    text("version"),
    tables("subgraph_metadata", "SubGraphMetadata"),
    text("author"),
    text("license"),
    Field("associated_files", "ignored"),
    text("min_parser_version"),
)


def _tensor(content: str) -> tuple[Field | None, ...]:
    return (
        text("name"),
        text("description"),
        None,
        Field("content", "table", table=content),
        tables("process_units", "ProcessUnit"),
        None,
        tables("associated_files", "AssociatedFile"),
    )


def _union(name: str, member: str) -> tuple[Field, ...]:
    return (scalar(f"{name}_type", 1), Field(name, "table", table=member))


METADATA_TABLES: Mapping[str, tuple[Field | None, ...]] = {
    "ModelMetadata": _HEAD,
    "AnyModelMetadata": tuple(
        field if field.kind == "text" else Field(field.name, "ignored") for field in _HEAD
    ),
    "SubGraphMetadata": (
        None,
        None,
        tables("input_tensor_metadata", "InputMetadata"),
        tables("output_tensor_metadata", "OutputMetadata"),
    ),
    "InputMetadata": _tensor("ImageContent"),
    "OutputMetadata": _tensor("FeatureContent"),
    "ImageContent": _union("content_properties", "ImageProperties"),
    "FeatureContent": _union("content_properties", "FeatureProperties"),
    "ImageProperties": (scalar("color_space", 1), None),
    "FeatureProperties": (),
    "ProcessUnit": _union("options", "NormalizationOptions"),
    "NormalizationOptions": (vector("mean", 4), vector("std", 4)),
    "AssociatedFile": (text("name"), None, scalar("type", 1)),
}
