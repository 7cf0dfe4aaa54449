"""What each byte of a .tflite is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bloodedge.deploy.flat.operators import (
    CONV_2D,
    DEPTHWISE_CONV_2D,
    FULLY_CONNECTED,
    TRANSPOSE_CONV,
    code_of,
    operator_kind,
)
from bloodedge.deploy.flat.reader import Document, read_model
from bloodedge.deploy.flat.tree import Table
from bloodedge.errors import ModelError

# Which input is the bias.
_BIAS_INPUT = {CONV_2D: 2, DEPTHWISE_CONV_2D: 2, FULLY_CONNECTED: 2, TRANSPOSE_CONV: 3}
# A file is lean with this many bytes, or this share, on top of its constants.
LEAN_BYTES, LEAN_SHARE = 4096, 0.10
MAX_BYTES = 2 << 30

WEIGHTS, BIASES, METADATA = "weights", "biases", "metadata"
HINTS, FILES = "runtime hints", "associated files"
# Notes of the converter that runtimes act on: float16 arithmetic where the processor has it.
HINT_NOTES = ("reduced_precision_support",)
_PURPOSES = {
    "weights": (),
    "biases": (),
    "scales": ("QuantizationParameters.scale",),
    "zero points": ("QuantizationParameters.zero_point",),
    "value ranges": ("QuantizationParameters.min", "QuantizationParameters.max"),
    "shapes": ("Tensor.shape", "Tensor.shape_signature"),
    "names": ("Tensor.name", "SubGraph.name", "TensorMap", "SignatureDef", "Model.signature_defs"),
    "tensor tables": ("Tensor", "QuantizationParameters", "SubGraph.tensors", "Buffer",
                      "Model.buffers"),
    "operator tables": ("Operator", "Options", "SubGraph.operators", "OperatorCode", "SubGraph",
                        "Model.operator_codes", "ReshapeOptions", "SqueezeOptions",
                        "Model.subgraphs"),
    "table layouts": ("vtable", "header", "Model"),
    "metadata": ("Metadata", "Model.metadata", "Model.metadata_buffer", "Model.description"),
    HINTS: (),
    FILES: (),
    "padding": (),
}  # fmt: skip


@dataclass(frozen=True)
class ByteMap:
    """Bytes by purpose; they add up to the file.

    Attributes:
        purposes: bytes of each purpose, in a fixed order.
        total: the file's size in bytes.
    """

    purposes: dict[str, int]
    total: int

    @property
    def constants(self) -> int:
        """Bytes of weights and biases: what no rewriting can remove."""
        return self.purposes[WEIGHTS] + self.purposes[BIASES]

    @property
    def added(self) -> int:
        """Bytes of metadata and labels: what an export adds for people and tools."""
        return self.purposes[METADATA] + self.purposes[FILES]

    @property
    def lean_limit(self) -> int:
        """The size up to which a file counts as lean, without what is `added`."""
        return self.constants + max(LEAN_BYTES, round(LEAN_SHARE * self.constants))

    @property
    def above_floor(self) -> int:
        """By how many bytes the file, without what is `added`, is too large; negative if lean."""
        return self.total - self.added - self.lean_limit


def map_file(path: Path) -> ByteMap:
    """Return the byte map of a file from anywhere.

    Raises:
        ModelError: the file is missing, too large, damaged, or uses an unknown part of the schema.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than 2 GiB", expected="a .tflite model")
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return map_bytes(content)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def map_bytes(content: bytes) -> ByteMap:
    """Return the byte map of a .tflite's content.

    Raises:
        ModelError: as `map_file`.
    """
    document = read_model(content)
    owners = _data_owners(document)
    purpose_of = {owner: name for name, kinds in _PURPOSES.items() for owner in kinds}
    found = dict.fromkeys(_PURPOSES, 0)
    reached = 0
    for start, (end, owner) in sorted(document.spans.items()):
        found["padding"] += max(0, start - reached)
        # Parts of a crafted file may overlap: no byte is counted twice.
        purpose = owners.get(start) or purpose_of.get(owner) or purpose_of[owner.split(".")[0]]
        found[purpose] += max(0, end - max(start, reached))
        reached = max(reached, end)
    files = len(content[reached:].lstrip(b"\0"))
    found[FILES] = files
    found["padding"] += len(content) - reached - files
    return ByteMap(found, len(content))


def _data_owners(document: Document) -> dict[int, str]:
    """Return what each buffer's data is for, by the byte it starts at."""
    model = document.model
    buffers = model.tables("buffers")
    owners: dict[int, str] = {}

    def mark(user: Table, purpose: str) -> None:
        index = user.number("buffer")
        data = buffers[index].vector("data") if 0 <= index < len(buffers) else None
        if data is not None:
            owners[document.starts[id(data)]] = purpose

    for buffer in buffers:
        if (data := buffer.vector("data")) is not None:
            owners[document.starts[id(data)]] = WEIGHTS
    for note in model.tables("metadata"):
        hint = note.text("name") in HINT_NOTES
        mark(note, HINTS if hint else METADATA)
        if hint and (name := note.vector("name")) is not None:
            owners[document.starts[id(name)]] = HINTS
    # A crafted file may name one graph any number of times.
    for graph in {id(graph): graph for graph in model.tables("subgraphs")}.values():
        for tensor in _biases(model, graph):
            mark(tensor, BIASES)
    return owners


def _biases(model: Table, graph: Table) -> list[Table]:
    codes, tensors = model.tables("operator_codes"), graph.tables("tensors")
    found = []
    for operator in graph.tables("operators"):
        place = _BIAS_INPUT.get(operator_kind(code_of(operator, codes)), -1)
        inputs = operator.numbers("inputs")
        if 0 < place < len(inputs) and 0 <= inputs[place] < len(tensors):
            found.append(tensors[inputs[place]])
    return found
