"""The table as Markdown and as CSV, from what is recorded."""

from __future__ import annotations

from collections.abc import Sequence

from bloodedge.benchmarks.full_table.facts import Facts, facts_of
from bloodedge.benchmarks.full_table.lines import line_cells, lines_of
from bloodedge.benchmarks.report.collect import collect
from bloodedge.benchmarks.report.data import ReportData, Row, Section
from bloodedge.benchmarks.report.sources import Sources, all_runs, named
from bloodedge.benchmarks.report.text import CSV_COLUMNS, SYNTHETIC, md, md_table, raw_values
from bloodedge.console import say
from bloodedge.errors import DataError
from bloodedge.files import csv_text
from bloodedge.runs import runs_root

_HEAD = (
    "model", "file", "test accuracy % [95 %]", "seeds, mean ± sd", "macro F1", "AUC", "ECE",
    "worst class recall %", "KB", "KB gzip", "MMAC", "median µs", "peak MiB", "arena KB",
)  # fmt: skip
NOTE = (
    "Accuracy with Wilson's interval, macro F1, AUC (the mean of one class against the rest), ECE "
    "(15 bins) and worst class are of the first seed on test, which was read once for each file; "
    "sd is the standard deviation over the seeds. KB is 1000 bytes. Keras files hold weights in "
    "float32. Latency is invoke() of one image with one thread; † marks a median whose processes "
    "differ by more than 10 %. Peak memory is what the process grew by. The arena is what TFLite "
    "Micro needs with 8-byte pointers."
)


def found_in(names: Sequence[str]) -> tuple[ReportData, dict[str, Facts]]:
    """Return what runs and results tell, and the facts of each file by its digest.

    Raises:
        RunError: a named run or result is missing.
        DataError: nothing is there.
    """
    sources: Sources = named(names) if names else all_runs([runs_root()])
    data = collect(sources.runs, sources.results)
    for name, why in (*sources.damaged, *data.left_out):
        say(f"left out {name}: {why}")
    if not data.sections:
        raise DataError(f"no run in {runs_root()}", fix="name runs, or a folder of manifests")
    return data, facts_of(sources.runs)


def render(data: ReportData, facts: dict[str, Facts], command: str) -> str:
    """Return the table as Markdown, without sections that have no line."""
    parts = ["# Every model", f"`{command}`. {NOTE}"]
    for section in data.sections:
        lines = lines_of(section)
        if not lines:
            continue
        parts.append(f"## {md(section.title)}")
        parts += [f"**{SYNTHETIC}**"] if section.synthetic else []
        places = sorted({one.row.latency.column for one in lines if one.row.latency})
        several = len(places) > 1
        if len(places) == 1:
            parts.append(f"Latency and memory on {md(places[0])}.")
        head = [*_HEAD, "device"] if several else list(_HEAD)
        cells = [line_cells(one, section.class_names, facts) for one in lines]
        if several:
            for shown, one in zip(cells, lines, strict=True):
                shown.append(one.row.latency.column if one.row.latency else "")
        parts.append(md_table([head, *cells]))
    return "\n\n".join(parts) + "\n"


def spreadsheet(data: ReportData, facts: dict[str, Facts]) -> str:
    """Return every file as a line of CSV; empty where nothing was measured."""
    rows: list[list[object]] = [[*CSV_COLUMNS, "macs", "arena_bytes"]]
    for section in data.sections:
        rows += [_values(section, row, facts) for row in section.rows]
    return csv_text(rows)


def _values(section: Section, row: Row, facts: dict[str, Facts]) -> list[object]:
    known = facts.get(row.sha256, Facts())
    return [*raw_values(section, row), known.macs_of(row), known.arena or None]
