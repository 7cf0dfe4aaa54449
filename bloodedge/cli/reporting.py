"""`bloodedge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Names or folders of runs; by default all.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")] = Path("report"),
    results: Annotated[
        list[Path] | None,
        typer.Option("--benchmark", help="A JSON that a device's runner wrote; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a report there.")] = False,
) -> None:
    """Compare runs: accuracy, size and latency, as an HTML page, Markdown and CSV."""
    from rich.console import Console

    from bloodedge.benchmarks.report import ReportConfig, summary_table
    from bloodedge.benchmarks.report import report as run
    from bloodedge.console import say

    result = run(ReportConfig(tuple(runs or ()), tuple(results or ()), out, force))
    for section in result.data.sections:
        table = summary_table(section.rows)
        table.title = section.title.replace("[", r"\[")
        Console().print(table)
    for name, why in result.data.left_out:
        say(f"left out {name}: {why}")
    print(result.page)
