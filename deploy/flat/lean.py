"""Dropping from a .tflite what no runtime reads; the answers stay bit for bit the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bloodedge.deploy.flat.reader import read_model
from bloodedge.deploy.flat.tree import Table, Vector
from bloodedge.deploy.flat.writer import write_tables
from bloodedge.errors import ModelError

# Notes of the converter to itself. Every other entry is kept, whoever wrote it.
CONVERTER_NOTES = ("min_runtime_version", "CONVERSION_METADATA")


def lean(content: bytes, notes: Mapping[str, bytes] | None = None) -> bytes:
    """Return a .tflite with the same answers in fewer bytes.

    Dropped: names of all but inputs and outputs, value ranges kept for the quantizer, the
    converter's notes, and buffers nothing refers to. Equal buffers, vectors and tables are stored
    once. Weights, biases, scales and zero points stay as they are: the runtimes read each of them
    (XNNPACK refuses convolutions whose bias has no scales, and a GPU delegate computes with them).

    Args:
        content: the file.
        notes: metadata to add, by name.

    Raises:
        ModelError: the file is damaged, has associated files behind it, uses a part of the schema
            that is not known here, or has metadata of such a name already.
    """
    document = read_model(content)
    if content[document.end :].strip(b"\0"):
        raise ModelError("the model has associated files behind it", fix="append them after this")
    strip(document.model)
    for name, data in (notes or {}).items():
        _add_note(document.model, name, data)
    return write_tables(document.model)


def _add_note(model: Table, name: str, data: bytes) -> None:
    known = model.tables("metadata")
    if any(note.text("name") == name for note in known):
        raise ModelError(f"the model has metadata {name!r} already, which would be lost")
    buffers = model.tables("buffers")
    note = Table("Metadata", {"buffer": len(buffers)})
    note.set_text("name", name)
    model.fields["metadata"] = [*known, note]
    model.fields["buffers"] = [*buffers, Table("Buffer", {"data": Vector(data, 1)})]


def strip(model: Table) -> None:
    """Remove from a parsed model, in place, what no runtime reads."""
    model.drop("description", "metadata_buffer")
    notes = [m for m in model.tables("metadata") if m.text("name") not in CONVERTER_NOTES]
    model.fields["metadata"] = notes
    if not notes:
        model.drop("metadata")
    for code in model.tables("operator_codes"):
        # Readers take the larger of the two; the second is for codes above 127.
        if code.number("builtin_code") == code.number("deprecated_builtin_code"):
            code.drop("builtin_code")
    for graph in model.tables("subgraphs"):
        _strip_graph(graph)
    _share_buffers(model)


def _strip_graph(graph: Table) -> None:
    graph.drop("name", "debug_metadata_index")
    ends = {*graph.numbers("inputs"), *graph.numbers("outputs")}
    for index, tensor in enumerate(graph.tables("tensors")):
        if index not in ends:
            tensor.drop("name")
        if tensor.numbers("shape"):
            # Tells a scalar from an unknown shape; this one is neither.
            tensor.drop("has_rank")
        if tensor.numbers("shape_signature") == tensor.numbers("shape"):
            tensor.drop("shape_signature")
        _strip_quantization(tensor)
    for operator in graph.tables("operators"):
        operator.drop("debug_metadata_index")
        for name in ("custom_options", "mutating_variable_inputs", "intermediates"):
            vector = operator.vector(name)
            if vector is not None and not any(vector.data):
                operator.drop(name)


def _strip_quantization(tensor: Table) -> None:
    quantization = tensor.table("quantization")
    if quantization is None:
        return
    quantization.drop("min", "max")
    if not quantization.numbers("scale"):
        tensor.drop("quantization")


def _share_buffers(model: Table) -> None:
    """Keep each distinct buffer once, the empty one first, as the format demands."""
    buffers = model.tables("buffers")
    kept: dict[bytes, int] = {b"": 0}
    leaner: list[Table] = [Table("Buffer")]
    moved: dict[int, int] = {}
    for user in _users(model):
        old = user.number("buffer")
        if not 0 <= old < len(buffers):
            raise ModelError(f"the model is damaged: it has no buffer {old}")
        if old not in moved:
            data = _data(buffers[old])
            moved[old] = kept.setdefault(data, len(leaner))
            if moved[old] == len(leaner):
                leaner.append(Table("Buffer", {"data": Vector(data, 1)}))
        user.fields["buffer"] = moved[old]
    model.fields["buffers"] = leaner


def _users(model: Table) -> Sequence[Table]:
    tensors = [t for graph in model.tables("subgraphs") for t in graph.tables("tensors")]
    return list({id(user): user for user in (*tensors, *model.tables("metadata"))}.values())


def _data(buffer: Table) -> bytes:
    vector = buffer.vector("data")
    return bytes(vector.data) if vector else b""
