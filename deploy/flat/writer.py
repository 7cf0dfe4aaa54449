"""Writing a .tflite in as few bytes as the format allows.

Equal parts are stored once, whatever refers to them: vectors, texts, tables and layouts. Parts are
placed so that alignment costs next to nothing: what needs a 16-byte boundary goes where one is
due, and small parts fill the way to the next.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field

from bloodedge.deploy.flat.kinds import KINDS
from bloodedge.deploy.flat.schema import DATA_ALIGNMENT, IDENTIFIER, Field
from bloodedge.deploy.flat.tree import Options, Table, Vector

# How many waiting parts are looked at for one that ends on the boundary another one needs.
_LOOK_AHEAD = 64


@dataclass(eq=False)
class _Part:
    """Bytes to place: `align` holds for the byte `prefix` bytes behind the start."""

    content: bytes
    align: int
    prefix: int = 0
    # Offsets within `content` that must hold the distance to another part.
    references: tuple[tuple[int, _Part], ...] = ()
    # A table's layout, whose distance stands in the first word.
    vtable: _Part | None = None
    waits_for: int = field(default=0, compare=False)

    def padding(self, position: int) -> int:
        return -(position + self.prefix) % self.align


def write_tables(root: Table, identifier: bytes = IDENTIFIER) -> bytes:
    """Return the flatbuffer of a tree; the same tree always gives the same bytes."""
    parts = _Parts()
    return _Layout(parts.table(root), identifier).place()


class _Parts:
    """Turns a tree into parts, each distinct one once."""

    def __init__(self) -> None:
        self._known: dict[object, _Part] = {}
        self._of_table: dict[int, _Part] = {}

    def _intern(self, part: _Part) -> _Part:
        references = tuple((offset, id(target)) for offset, target in part.references)
        key = (part.content, part.align, part.prefix, references, id(part.vtable))
        return self._known.setdefault(key, part)

    def table(self, table: Table) -> _Part:
        if id(table) not in self._of_table:
            self._of_table[id(table)] = self._new_table(table)
        return self._of_table[id(table)]

    def _new_table(self, table: Table) -> _Part:
        stored: list[tuple[int, Field]] = []
        for slot, known in enumerate(KINDS[table.kind]):
            if known is not None and table.fields.get(known.name, known.default) != known.default:
                stored.append((slot, known))
        content = bytearray(4)
        references = []
        offsets = [0] * (1 + max((slot for slot, _ in stored), default=-1))
        # Words first: then no padding is needed between the fields.
        for slot, known in sorted(stored, key=lambda entry: entry[1].width_inline < 4):
            offsets[slot] = len(content)
            value = table.fields[known.name]
            if isinstance(value, int):
                content += value.to_bytes(known.width, "little", signed=True)
                continue
            references.append((len(content), self._child(table, known)))
            content += bytes(4)
        vtable = struct.pack(f"<{2 + len(offsets)}H", 4 + 2 * len(offsets), len(content), *offsets)
        layout = self._intern(_Part(vtable, 2))
        return self._intern(_Part(bytes(content), 4, 0, tuple(references), layout))

    def _child(self, table: Table, known: Field) -> _Part:
        value = table.fields[known.name]
        if isinstance(value, Table):
            return self.table(value)
        if isinstance(value, Options):
            layout = self._intern(_Part(value.vtable, 2))
            return self._intern(_Part(bytes(4) + value.inline, 4, 0, (), layout))
        if isinstance(value, list):
            children = [self.table(child) for child in value]
            content = struct.pack("<I", len(children)) + bytes(4 * len(children))
            slots = tuple((4 + 4 * i, child) for i, child in enumerate(children))
            return self._intern(_Part(content, 4, 0, slots))
        if not isinstance(value, Vector):
            raise TypeError(f"{table.kind}.{known.name} cannot be stored")
        align = DATA_ALIGNMENT if (table.kind, known.name) == ("Buffer", "data") else value.width
        return self._intern(_vector_part(value, max(4, align)))


def _vector_part(vector: Vector, align: int) -> _Part:
    count = len(vector.data) // vector.width
    content = struct.pack("<I", count) + bytes(vector.data) + b"\0" * vector.text
    # The length is a word of its own in front of the first, aligned element.
    return _Part(content, align, 4 if align > 4 else 0)


class _Layout:
    """Places parts one after the other: a part only after all that refer to it."""

    def __init__(self, root: _Part, identifier: bytes) -> None:
        self._root = root
        self._identifier = identifier
        self._position = 8
        self._placed: dict[int, int] = {}
        self._order: list[tuple[int, _Part]] = []
        self._ready: dict[tuple[int, int], deque[_Part]] = {}

    def place(self) -> bytes:
        self._count_referrers()
        self._offer(self._root)
        while any(self._ready.values()):
            part = self._next()
            self._position += part.padding(self._position)
            self._placed[id(part)] = self._position
            self._order.append((self._position, part))
            self._position += len(part.content)
            for target in dict.fromkeys(target for _, target in part.references):
                target.waits_for -= 1
                if target.waits_for == 0:
                    self._offer(target)
        return self._bytes()

    def _count_referrers(self) -> None:
        pending, seen = [self._root], {id(self._root)}
        while pending:
            part = pending.pop()
            children = dict.fromkeys(target for _, target in part.references)
            for target in children:
                target.waits_for += 1
            # The distance to a layout is signed: it may stand anywhere.
            for target in (*children, *([part.vtable] if part.vtable else [])):
                if id(target) not in seen:
                    seen.add(id(target))
                    pending.append(target)
                    if target.align == 2:
                        self._offer(target)

    def _offer(self, part: _Part) -> None:
        self._ready.setdefault((part.align, part.prefix), deque()).append(part)

    def _next(self) -> _Part:
        """Take the waiting part that needs least padding, the most demanding of equals."""
        at = self._position
        key = min(
            (k for k, parts in self._ready.items() if parts),
            key=lambda k: (self._ready[k][0].padding(at), -k[0]),
        )
        parts = self._ready[key]
        if key[0] <= 4:
            return self._leading_to_a_boundary(parts)
        return parts.popleft()

    def _leading_to_a_boundary(self, parts: deque[_Part]) -> _Part:
        """Take, of the small parts in front, one that ends where a demanding one can start."""
        start = self._position + parts[0].padding(self._position)
        for key in sorted(self._ready, reverse=True):
            if key[0] <= 4 or not self._ready[key]:
                continue
            for i in range(min(len(parts), _LOOK_AHEAD)):
                if self._ready[key][0].padding(start + len(parts[i].content)) == 0:
                    part = parts[i]
                    del parts[i]
                    return part
        return parts.popleft()

    def _bytes(self) -> bytes:
        out = bytearray(self._position)
        struct.pack_into("<I4s", out, 0, self._placed[id(self._root)], self._identifier)
        for position, part in self._order:
            out[position : position + len(part.content)] = part.content
            for offset, target in part.references:
                distance = self._placed[id(target)] - position - offset
                struct.pack_into("<I", out, position + offset, distance)
            if part.vtable is not None:
                struct.pack_into("<i", out, position, position - self._placed[id(part.vtable)])
        return bytes(out)
