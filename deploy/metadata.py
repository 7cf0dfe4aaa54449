"""What a .tflite says of itself: for the tools that load it, and where it came from.

`TFLITE_METADATA` is the block that Android Studio, ML Kit and MediaPipe Tasks read: how the image
is normalized, and which associated file names the classes. `bloodedge` is JSON of our own: the
parent's digest, the data's fingerprint, the figures and the gates, which survive the file being
copied away from its manifest.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bloodedge.deploy.flat.metadata_schema import IDENTIFIER
from bloodedge.deploy.flat.reader import read_model, read_tables
from bloodedge.deploy.flat.tree import Table, Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.deploy.labels import LABELS_FILE
from bloodedge.errors import ModelError
from bloodedge.files import parse_json
from bloodedge.text import one_line

STANDARD, OWN = "TFLITE_METADATA", "bloodedge"
FAILED = "failed"
_RGB = 1
_IMAGE_PROPERTIES = 2
_FEATURE_PROPERTIES = 1
_NORMALIZATION = 1
_AXIS_LABELS = 2
_MAX_JSON = 1 << 20
_MAX_TEXT = 500
# Of a SHA-256, in the file: 128 bits tell any two models or data sets apart.
_DIGITS = 32
# Of a data set's title, in the file.
_TITLE = 48


@dataclass(frozen=True)
class About:
    """What people should know of a model; an empty text is left out.

    Attributes:
        name: the model's.
        description: one sentence.
        version: of the model.
        author: who made it.
        licence: under which others may use it.
    """

    name: str
    description: str = ""
    version: str = ""
    author: str = ""
    licence: str = ""


def describe_use(title: str) -> str:
    """Return the sentence a file says of itself: what it was trained on, and for what.

    What follows a colon in the title of a data set explains it, and is left out.
    """
    return f"Trained on {title.split(': ')[0][:_TITLE]}; research use only."


def provenance(
    *,
    parent: str,
    data: str,
    synthetic: bool,
    val: Mapping[str, float],
    failed: Sequence[str],
    limits: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return where a file comes from, in as few bytes as keep it readable.

    Args:
        parent: the SHA-256 of the model it was converted from.
        data: the fingerprint of the data it was checked on.
        synthetic: whether those are drawn; left out if not.
        val: its figures there.
        failed: what its gate says; empty if it passed.
        limits: of the gate, as far as they were chosen for this file; left out if none were.
    """
    found: dict[str, Any] = {
        "parent": parent[:_DIGITS],
        "data": data[:_DIGITS],
        "val": dict(val),
    }
    if synthetic:
        found["synthetic"] = True
    if limits:
        found["limits"] = dict(limits)
    return found | {FAILED: list(failed)}


def notes(about: About, origin: Mapping[str, Any]) -> dict[str, bytes]:
    """Return both metadata entries, for `bloodedge.deploy.flat.lean.lean`."""
    text = json.dumps(origin, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return {STANDARD: standard_metadata(about), OWN: text.encode()}


def standard_metadata(about: About) -> bytes:
    """Return the `M001` flatbuffer of an image classifier that takes raw pixel values.

    Mean 0 and standard deviation 1: tools that normalize the image leave 0..255 as they are.
    """
    root = Table("ModelMetadata")
    for field in ("name", "description", "version", "author"):
        root.set_text(field, getattr(about, field))
    root.set_text("license", about.licence)
    graph = Table("SubGraphMetadata")
    graph.fields["input_tensor_metadata"] = [_input()]
    graph.fields["output_tensor_metadata"] = [_output()]
    root.fields["subgraph_metadata"] = [graph]
    return write_tables(root, IDENTIFIER)


def _input() -> Table:
    normalization = Table("NormalizationOptions", {"mean": _floats(0), "std": _floats(1)})
    unit = Table("ProcessUnit", {"options_type": _NORMALIZATION, "options": normalization})
    properties = Table("ImageProperties", {"color_space": _RGB})
    content = Table(
        "ImageContent",
        {"content_properties_type": _IMAGE_PROPERTIES, "content_properties": properties},
    )
    table = Table("InputMetadata", {"content": content, "process_units": [unit]})
    table.set_text("name", "image")
    return table


def _output() -> Table:
    labels = Table("AssociatedFile", {"type": _AXIS_LABELS})
    labels.set_text("name", LABELS_FILE)
    content = Table(
        "FeatureContent",
        {
            "content_properties_type": _FEATURE_PROPERTIES,
            "content_properties": Table("FeatureProperties"),
        },
    )
    table = Table("OutputMetadata", {"content": content, "associated_files": [labels]})
    table.set_text("name", "probability")
    return table


def _floats(value: float) -> Vector:
    return Vector(struct.pack("<f", value), 4)


@dataclass(frozen=True)
class Found:
    """What a file says of itself.

    Attributes:
        about: from the standard block; None without one.
        provenance: what we wrote; empty for files from elsewhere.
        others: the names of all other entries.
    """

    about: About | None
    provenance: Mapping[str, Any]
    others: tuple[str, ...]

    @property
    def foreign(self) -> bool:
        """Whether another tool wrote the standard block."""
        return self.about is not None and not self.provenance


def read_metadata(content: bytes) -> Found:
    """Return what a .tflite from anywhere says of itself.

    Raises:
        ModelError: the file or its metadata is damaged.
    """
    model = read_model(content).model
    buffers = model.tables("buffers")
    entries: dict[str, Vector | None] = {}
    for note in model.tables("metadata"):
        index = note.number("buffer")
        inside = 0 <= index < len(buffers)
        entries[one_line(note.text("name"))] = buffers[index].vector("data") if inside else None
    about = _about(_content(entries.pop(STANDARD))) if STANDARD in entries else None
    own = _own(_content(entries.pop(OWN))) if OWN in entries else {}
    return Found(about, own, tuple(entries))


def _content(vector: Vector | None) -> bytes:
    return bytes(vector.data) if vector else b""


def _about(data: bytes) -> About:
    head = read_tables(data, "AnyModelMetadata", IDENTIFIER)
    fields = ("name", "description", "version", "author", "license")
    return About(*(one_line(head.text(name), _MAX_TEXT) for name in fields))


def _own(data: bytes) -> dict[str, Any]:
    try:
        if len(data) > _MAX_JSON:
            raise ValueError("it is larger than 1 MiB")
        value = parse_json(data.decode())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the metadata {OWN!r} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"the metadata {OWN!r} is no JSON object")
    return value
