"""One part of a section: a table with its notes, however it is shown in the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bloodedge.benchmarks.report.figures import Figure

if TYPE_CHECKING:
    from rich.table import Table

Line = tuple[str, ...]
# What the leading columns and each other one take on a terminal, with the space between.
_LEADING, _COLUMN = 36, 22


@dataclass(frozen=True)
class Part:
    """What a section tells beside its comparison, such as energy.

    Attributes:
        name: in small letters: that of its CSV file.
        heading: above it.
        table: rows of text under a row of headings; empty where there is nothing to show.
        notes: what a reader needs to know, in sentences, below the table.
        words: the columns that hold words and not numbers.
        raw: the same as plain values for a spreadsheet, under a row of headings.
        figures: shown below the table.
        leading: how many columns are repeated where a terminal is too narrow for all columns; 0
            to leave the table whole.
    """

    name: str
    heading: str
    table: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    words: frozenset[int] = frozenset({0})
    raw: tuple[tuple[object, ...], ...] = ()
    figures: tuple[Figure, ...] = ()
    leading: int = 0


def terminal_tables(part: Part, width: int) -> Iterator[Table]:
    """Yield a part's table for a terminal of so many letters, as several if it is wide."""
    columns = len(part.table[0]) if part.table else 0
    first = range(part.leading) if part.leading else range(columns)
    rest = range(len(first), columns)
    many = max(1, (width - _LEADING) // _COLUMN)
    for start in range(0, max(1, len(rest)), many) if columns else ():
        yield _terminal_table(part, [*first, *rest[start : start + many]])


def _terminal_table(part: Part, places: Sequence[int]) -> Table:
    from bloodedge.tables import table

    head, *rows = ([row[place] for place in places] for row in part.table)
    words = [part.table[0][place] for place in places if place in part.words]
    return table(head, rows, words=words, title=part.heading)
