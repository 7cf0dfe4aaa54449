"""How `bloodedge compress` and `pipeline` show their steps, and the first what they left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bloodedge.compress.chain.run import Planned
    from bloodedge.deploy.recipe.rows import Row


def print_plan(steps: Sequence[Planned], *, timed: bool = False) -> None:
    """Print the steps and how far they have come; if `timed`, how long each still takes, too."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("step", "run", "state", box=SIMPLE_HEAD, pad_edge=False)
    if timed:
        table.add_column("takes", justify="right")
    for step in steps:
        state = ": ".join([step.state.value, ", ".join(step.differs)]).removesuffix(": ")
        cells = (step.link.step, step.link.name, state, *([duration(step.left)] if timed else []))
        table.add_row(*map(escape, cells))
    Console(highlight=False).print(table)


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: `12 s`, `7 min`, `3 h 20 min`."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def print_rows(rows: Sequence[Row], title: str) -> None:
    """Print what each step left, and of which data its accuracy is."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    # Names whose ends differ must not lose them on a narrow terminal.
    table = Table("step", Column("run", overflow="fold"), box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("KB", "KB gzip", "kMACs", r"val accuracy % \[95 %]"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        low, high = (100 * bound for bound in row.interval)
        table.add_row(
            escape(row.step + ("" if row.is_file else " *")),
            escape(row.name + (", failed its gate" if row.failed else "")),
            f"{row.bytes / 1000:,.1f}",
            f"{row.gzip_bytes / 1000:,.1f}",
            "-" if row.macs is None else f"{row.macs / 1000:,.0f}",
            f"{100 * row.accuracy:.2f} \\[{low:.2f}, {high:.2f}]",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("* a Keras model: its weights in float32; qat's accuracy is that of int8")
    console.print(f"accuracy on val of {escape(title)}", soft_wrap=True)
