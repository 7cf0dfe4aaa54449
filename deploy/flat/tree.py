"""A .tflite as plain objects, between reading and writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from bloodedge.deploy.flat.kinds import default_of


@dataclass(eq=False)
class Vector:
    """A vector of scalars, or a text (whose terminating zero is not part of `data`).

    Attributes:
        data: the elements, little endian.
        width: bytes of an element.
        text: whether a zero follows the last element.
    """

    data: bytes | memoryview
    width: int
    text: bool = False

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """The elements as signed integers."""
        raw, step = bytes(self.data), self.width
        return tuple(
            int.from_bytes(raw[i : i + step], "little", signed=True)
            for i in range(0, len(raw), step)
        )


@dataclass(eq=False)
class Options:
    """A table without offsets, copied byte by byte: its vtable and what follows its first word."""

    vtable: bytes
    inline: bytes


@dataclass(eq=False)
class Table:
    """A table of a known kind: its fields by name, without those that are absent.

    Attributes:
        kind: of `KINDS`.
        fields: its fields.
        slots: those it has beside them that are not known here; none in a file to be written.
    """

    kind: str
    fields: dict[str, Value] = field(default_factory=dict)
    slots: set[int] = field(default_factory=set)

    def number(self, name: str) -> int:
        """Return a scalar, or its default where it is absent."""
        value = self.fields.get(name)
        return value if isinstance(value, int) else default_of(self.kind, name)

    def vector(self, name: str) -> Vector | None:
        """Return a vector or text, or None where it is absent."""
        value = self.fields.get(name)
        return value if isinstance(value, Vector) else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return a vector of integers; empty where it is absent."""
        vector = self.vector(name)
        return vector.numbers if vector else ()

    def tables(self, name: str) -> list[Table]:
        """Return a vector of tables; empty where it is absent."""
        value = self.fields.get(name)
        return value if isinstance(value, list) else []

    def table(self, name: str) -> Table | None:
        """Return a table, or None where it is absent."""
        value = self.fields.get(name)
        return value if isinstance(value, Table) else None

    def text(self, name: str) -> str:
        """Return a text; empty where it is absent."""
        vector = self.vector(name)
        return bytes(vector.data).decode("utf-8", "replace") if vector else ""

    def set_text(self, name: str, value: str) -> None:
        """Store a text, unless it is empty."""
        if value:
            self.fields[name] = Vector(value.encode(), 1, text=True)

    def drop(self, *names: str) -> None:
        """Remove fields."""
        for name in names:
            self.fields.pop(name, None)


Value = int | Vector | Options | Table | list[Table]
