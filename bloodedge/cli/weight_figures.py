"""How the commands that change weights say what became of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bloodedge.runs import Run


def print_weights(run: Run) -> None:
    """Print a table of the layers, the sizes before and after, and what val says."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bloodedge.cli.training import print_run

    weights = run.manifest["model"]["weights"]
    table = Table("layer", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("weights", "zeros %", "values"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("left alone because")
    for row in weights["layers"]:
        counted = f"{row['weights']:,}" if row["weights"] else "-"
        zeros = f"{100 * row['sparsity']:.2f}" if row["weights"] else "-"
        values = f"{row['values']:,}" if row["weights"] else "-"
        table.add_row(escape(row["name"]), counted, zeros, values, escape(row["reason"]))
    console = Console(highlight=False)
    console.print(table)
    before, after = weights["sizes"]["before"], weights["sizes"]["after"]
    for kind in before:
        console.print(
            f"{kind} weights: {after[kind]['bytes']:,} bytes; gzip {before[kind]['gzip_bytes']:,} "
            f"-> {after[kind]['gzip_bytes']:,}",
            soft_wrap=True,
        )
    console.print(f"counted: {weights['counted']}\n{weights['note']}", soft_wrap=True)
    print_run(run)
