"""Reading a .tflite from anywhere: every offset is checked before it is followed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from bloodedge.deploy.flat.kinds import KINDS
from bloodedge.deploy.flat.schema import (
    FULLY_CONNECTED_OPTIONS,
    IDENTIFIER,
    LAST_OPTION,
    OPTION_TABLES,
    QUANT_SPEC_SLOT,
    REFUSED_OPTIONS,
    Field,
)
from bloodedge.deploy.flat.tree import Options, Table, Value, Vector
from bloodedge.errors import ModelError

# Far above any network. A crafted file can refer to one place from everywhere, so that a small one
# would take for ever to read.
MAX_TABLES = 100_000
_MAX_SLOTS = 64


@dataclass
class Document:
    """A parsed file.

    Attributes:
        model: the root table.
        spans: what each byte range belongs to: start -> (end, owner); an owner is a table's kind,
            a `Kind.field`, `vtable` or `header`.
        starts: where each vector's length stands, by the vector's `id`.
    """

    model: Table
    spans: dict[int, tuple[int, str]]
    starts: dict[int, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The first byte behind the flatbuffer."""
        return max(end for end, _ in self.spans.values())


def read_model(content: bytes, *, only_look: bool = False) -> Document:
    """Parse a .tflite; what follows the flatbuffer is not looked at.

    Args:
        content: the file.
        only_look: leave out parts of the schema that are not known here, and note in each table
            which `slots` they are: for looking at a file that is not written again.

    Raises:
        ModelError: the file is damaged, or uses a part of the schema that is not known here.
    """
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise ModelError("no TFLite model", expected="the identifier TFL3 at byte 4")
    return _Reader(memoryview(content), only_look=only_look).document("Model")


def read_tables(content: bytes, kind: str, identifier: bytes) -> Table:
    """Parse another flatbuffer whose root table is of a known kind.

    Raises:
        ModelError: it is damaged, or has another identifier.
    """
    if len(content) < 8 or content[4:8] != identifier:
        raise ModelError(f"no {kind}", expected=f"the identifier {identifier.decode()} at byte 4")
    return _Reader(memoryview(content)).document(kind).model


class _Reader:
    def __init__(self, data: memoryview, *, only_look: bool = False) -> None:
        self._data = data
        self._only_look = only_look
        self._spans: dict[int, tuple[int, str]] = {0: (8, "header")}
        self._starts: dict[int, int] = {}
        self._tables: dict[tuple[int, str], Table] = {}
        self._vectors: dict[tuple[int, int, bool], Vector] = {}
        self._copied: dict[int, Options] = {}
        self._count = 0
        # Vectors of an honest file do not overlap: together they are no longer than the file.
        self._budget = 2 * len(data)

    def document(self, kind: str) -> Document:
        model = self._table(self._follow(0), kind)
        return Document(model, self._spans, self._starts)

    def _unsigned(self, at: int, width: int) -> int:
        self._check(at, width)
        return int.from_bytes(self._data[at : at + width], "little")

    def _signed(self, at: int, width: int) -> int:
        self._check(at, width)
        return int.from_bytes(self._data[at : at + width], "little", signed=True)

    def _check(self, at: int, length: int) -> None:
        if at < 0 or length < 0 or at + length > len(self._data):
            raise ModelError(
                f"the model is damaged: {length} bytes at byte {at} lie outside its "
                f"{len(self._data)} bytes"
            )

    def _follow(self, at: int) -> int:
        target = at + self._unsigned(at, 4)
        if target <= at:
            raise ModelError(f"the model is damaged: the offset at byte {at} leads nowhere")
        return target

    def _claim(self, start: int, end: int, owner: str) -> None:
        known = self._spans.get(start)
        if known is None or known[0] < end:
            self._spans[start] = (end, owner)

    def _layout(self, at: int) -> tuple[int, list[int]]:
        """Return a table's size in bytes and its fields' offsets within it, 0 where absent."""
        vtable = at - self._signed(at, 4)
        size = self._unsigned(vtable, 2)
        inline = self._unsigned(vtable + 2, 2)
        self._check(vtable, size)
        self._check(at, inline)
        if not 4 <= size <= 4 + 2 * _MAX_SLOTS or size % 2 or inline < 4:
            raise ModelError(f"the model is damaged: the table at byte {at} has no valid layout")
        self._claim(vtable, vtable + size, "vtable")
        offsets = [o for (o,) in struct.iter_unpack("<H", self._data[vtable + 4 : vtable + size])]
        if any(0 < o < 4 or o >= inline for o in offsets):
            raise ModelError(f"the model is damaged: a field of the table at byte {at} is outside")
        return inline, offsets

    def _table(self, at: int, kind: str) -> Table:
        if (at, kind) in self._tables:
            return self._tables[at, kind]
        self._count += 1
        if self._count > MAX_TABLES:
            raise ModelError(f"the model has more than {MAX_TABLES:,} tables")
        table = self._tables[at, kind] = Table(kind)
        inline, offsets = self._layout(at)
        self._claim(at, at + inline, kind)
        for slot, offset in enumerate(offsets):
            if offset:
                known = KINDS[kind][slot] if slot < len(KINDS[kind]) else None
                if known is None:
                    self._unknown(at + offset, table, slot)
                elif known.kind not in ("options", "ignored"):
                    table.fields[known.name] = self._field(at + offset, kind, known)
        if kind == "Operator":
            self._options(at, offsets, table)
        return table

    def _unknown(self, at: int, table: Table, slot: int) -> None:
        """Refuse a slot that is not known here, unless it holds nothing."""
        if self._data[at] == 0:
            return
        if not self._only_look:
            raise ModelError(
                f"the model uses slot {slot} of {table.kind}, which is not supported",
                expected="a plain image classifier",
            )
        table.slots.add(slot)

    def _field(self, at: int, kind: str, known: Field) -> Value:
        if known.kind == "scalar":
            return self._signed(at, known.width)
        target = self._follow(at)
        if known.kind == "table":
            return self._table(target, known.table)
        owner = f"{kind}.{known.name}"
        if known.kind == "tables":
            return [self._table(t, known.table) for t in self._elements(target, owner)]
        return self._vector(target, known.width, owner, text=known.kind == "text")

    def _elements(self, at: int, owner: str) -> Iterator[int]:
        count = self._unsigned(at, 4)
        self._check(at + 4, 4 * count)
        if count > MAX_TABLES:
            raise ModelError(f"the model has more than {MAX_TABLES:,} tables")
        self._claim(at, at + 4 + 4 * count, owner)
        self._count += count
        if self._count > MAX_TABLES:
            raise ModelError(f"the model has more than {MAX_TABLES:,} tables")
        for i in range(count):
            yield self._follow(at + 4 + 4 * i)

    def _vector(self, at: int, width: int, owner: str, *, text: bool) -> Vector:
        key = (at, width, text)
        if key not in self._vectors:
            length = self._unsigned(at, 4) * width
            self._check(at + 4, length + text)
            self._budget -= length
            if self._budget < 0:
                raise ModelError("the model is damaged: its parts overlap")
            self._claim(at, at + 4 + length + text, owner)
            self._vectors[key] = Vector(self._data[at + 4 : at + 4 + length], width, text)
            self._starts[id(self._vectors[key])] = at
        return self._vectors[key]

    def _options(self, at: int, offsets: list[int], table: Table) -> None:
        offset = offsets[4] if len(offsets) > 4 else 0
        if not offset:
            return
        member = table.number("builtin_options_type") & 0xFF
        target = self._follow(at + offset)
        if member in OPTION_TABLES:
            table.fields["builtin_options"] = self._table(target, OPTION_TABLES[member])
            return
        if member in REFUSED_OPTIONS or not 0 < member <= LAST_OPTION:
            raise ModelError(f"the model has operator options of kind {member}, not supported")
        inline, slots = self._layout(target)
        if member == FULLY_CONNECTED_OPTIONS and any(slots[QUANT_SPEC_SLOT:]):
            raise ModelError("the model has a fully connected operator with a quant_spec")
        self._claim(target, target + inline, "Options")
        if target not in self._copied:
            self._copied[target] = self._copy(target, inline)
        table.fields["builtin_options"] = self._copied[target]

    def _copy(self, at: int, inline: int) -> Options:
        """Return a table of so many bytes as it is stored."""
        vtable = at - self._signed(at, 4)
        size = self._unsigned(vtable, 2)
        return Options(
            bytes(self._data[vtable : vtable + size]), bytes(self._data[at + 4 : at + inline])
        )
