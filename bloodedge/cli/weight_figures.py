"""How the commands that change weights say what became of each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bloodedge.runs import Run


def print_weights(run: Run) -> None:
    """Print a table of the layers, the sizes before and after, and what val says."""
    from bloodedge.cli.training import print_run
    from bloodedge.tables import print_table, table

    weights = run.manifest["model"]["weights"]
    rows = []
    for row in weights["layers"]:
        counted = f"{row['weights']:,}" if row["weights"] else "-"
        zeros = f"{100 * row['sparsity']:.2f}" if row["weights"] else "-"
        values = f"{row['values']:,}" if row["weights"] else "-"
        rows.append((row["name"], counted, zeros, values, row["reason"]))
    why = "left alone because"
    print_table(table(("layer", "weights", "zeros %", "values", why), rows, words=(why,)))
    before, after = weights["sizes"]["before"], weights["sizes"]["after"]
    for kind in before:
        print(
            f"{kind} weights: {after[kind]['bytes']:,} bytes; gzip {before[kind]['gzip_bytes']:,} "
            f"-> {after[kind]['gzip_bytes']:,}"
        )
    print(f"counted: {weights['counted']}\n{weights['note']}")
    print_run(run)
