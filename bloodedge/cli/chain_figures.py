"""How `bloodedge compress` and `pipeline` show their steps, and the first what they left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bloodedge.compress.chain.run import Planned
    from bloodedge.deploy.recipe.rows import Row


def print_plan(steps: Sequence[Planned], *, timed: bool = False) -> None:
    """Print the steps and how far they have come; if `timed`, how long each still takes, too."""
    from bloodedge.tables import print_table, table

    rows = []
    for step in steps:
        state = ": ".join([step.state.value, ", ".join(step.differs)]).removesuffix(": ")
        takes = [duration(step.left)] if timed else []
        rows.append((step.link.step, step.link.name, state, *takes))
    head = ("step", "run", "state", *(["takes"] if timed else []))
    print_table(table(head, rows, words=("run", "state")))


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
    from bloodedge.tables import print_table, table
    from bloodedge.text import kilobytes

    head = ("step", "run", "KB", "KB gzip", "kMACs", "val accuracy % [95 %]")
    cells = []
    for row in rows:
        low, high = (100 * bound for bound in row.interval)
        cells.append(
            (
                row.step + ("" if row.is_file else " *"),
                row.name + (", failed its gate" if row.failed else ""),
                kilobytes(row.bytes),
                kilobytes(row.gzip_bytes),
                "-" if row.macs is None else f"{row.macs / 1000:,.0f}",
                f"{100 * row.accuracy:.2f} [{low:.2f}, {high:.2f}]",
            )
        )
    print_table(table(head, cells, words=("run",)))
    print("* a Keras model: its weights in float32; qat's accuracy is that of int8")
    print(f"accuracy on val of {title}")
