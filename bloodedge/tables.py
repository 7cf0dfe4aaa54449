"""Tables for a terminal: figures are never cut or broken, names are folded, nothing is markup."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from copy import copy
from itertools import takewhile
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

# Spaces between columns, and how narrow a column of words may become.
_GAP = 2
_NARROW = 8


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    words: Collection[str] = (),
    title: str = "",
    caption: str = "",
) -> Table:
    """Return a table whose first column holds names and whose others hold figures.

    Args:
        head: the headings, which are broken between words where their figures are shorter.
        rows: a cell for each heading; an empty row leaves one line blank.
        words: headings of further columns of words, which are folded as names are.
        title: what stands above.
        caption: what stands below.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    shown = Table(
        title=Text(title) if title else None,
        caption=Text(caption) if caption else None,
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
    )
    for place, heading in enumerate(head):
        if not place or heading in words:
            shown.add_column(Text(heading), overflow="fold")
            continue
        cells = (row[place] for row in rows if row)
        width = max(map(len, (*heading.split(), heading[:_NARROW], *cells)))
        heading = textwrap.fill(heading, width, break_long_words=False, break_on_hyphens=False)
        shown.add_column(Text(heading), justify="right", no_wrap=True, min_width=width)
    for row in rows:
        if row:
            shown.add_row(*map(Text, row))
        else:
            shown.add_section()
    return shown


def terminal_width() -> int:
    """Return how many columns stdout's terminal has; a file or a pipe has no end of them."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else sys.maxsize


def print_table(shown: Table) -> None:
    """Print a table to stdout: as wide as it is to a file or a pipe, else as the terminal.

    Where the figures alone are wider than the terminal, the terminal breaks the lines: half of a
    number looks like a number. So it does with what stands above and below.
    """
    from rich.console import Console
    from rich.measure import Measurement

    body = copy(shown)
    body.title = body.caption = None
    console = Console(highlight=False)
    whole = Measurement.get(console, console.options.update(width=sys.maxsize), body).maximum
    least = sum(column.min_width or _NARROW for column in body.columns)
    least += _GAP * (len(body.columns) - 1)
    console.width = min(whole, max(terminal_width(), least))
    if shown.title:
        print(shown.title)
    console.print(body)
    if shown.caption:
        print(shown.caption)


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """Return each path without the folders that all share: what tells two apart is at their end."""
    parts = {path: PurePath(path).parts for path in paths}
    folders = zip(*(own[:-1] for own in parts.values()), strict=False)
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, folders))
    return {path: str(PurePath(*own[shared:])) for path, own in parts.items()}
