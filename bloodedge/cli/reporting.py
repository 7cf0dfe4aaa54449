"""`bloodedge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names or folders of runs, JSON files that a device's runner or a driver wrote, "
            "and folders of recorded ones; by default all runs."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")] = Path("report"),
    results: Annotated[
        list[Path] | None,
        typer.Option("--benchmark", help="Such a JSON beside all runs; may be repeated."),
    ] = None,
    power: Annotated[
        Path | None,
        typer.Option(
            "--power",
            help="A power meter's CSV, for energy: columns time (seconds since 1970, or ISO 8601, "
            "UTC unless it says otherwise), and watts or volts and amperes.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a report there.")] = False,
) -> None:
    """Compare runs and devices: accuracy, size, latency, as an HTML page, Markdown and CSV.

    What cannot be read is left out, and the exit code is then 1.
    """
    from bloodedge.benchmarks.report.part import terminal_tables
    from bloodedge.benchmarks.report.stage import ReportConfig, summary_table
    from bloodedge.benchmarks.report.stage import report as run
    from bloodedge.console import say
    from bloodedge.tables import print_table, terminal_width

    result = run(ReportConfig(tuple(runs or ()), tuple(results or ()), power, out, force))
    for section, parts in zip(result.data.sections, result.parts, strict=True):
        mark = " (synthetic)" if section.synthetic else ""
        # Where nothing was evaluated, the devices' own tables say all there is.
        if any(row.scores for row in section.rows) or not parts:
            print_table(summary_table(section.rows, section.title + mark))
        for part in parts:
            for shown in terminal_tables(part, terminal_width()):
                print_table(shown)
            for note in part.notes:
                print(note)
    for name, why in result.data.left_out:
        say(f"left out {name}: {why}")
    print(result.page)
    if result.data.bad:
        raise typer.Exit(1)
