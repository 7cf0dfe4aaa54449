"""The report's words and numbers: table cells, Markdown, CSV, and the table on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bloodedge.benchmarks.report.data import ReportData, Row, Scores, Section
from bloodedge.benchmarks.report.part import Part
from bloodedge.files import csv_text
from bloodedge.text import kilobytes

COLUMNS = (
    "model", "variant", "split", "KB", "KB gzip", "accuracy % [95 %]", "macro F1", "AUC", "ECE",
    "worst class recall %", "median µs", "p90 µs", "p99 µs", "all cores µs", "peak MiB",
    "first ms", "device",
)  # fmt: skip
CSV_COLUMNS = (
    "data_fingerprint", "data_title", "synthetic", "model", "variant", "family", "file", "sha256",
    "bytes", "gzip_bytes", "split", "images", "accuracy", "accuracy_low", "accuracy_high",
    "macro_f1", "auc", "ece", "worst_class", "worst_class_recall", "device", "runtime", "protocol",
    "median_us", "p90_us", "p99_us", "drift", "all_cores", "all_cores_median_us",
    "peak_rss_kib", "load_ms", "first_ms", "quick", "failed_gate",
)  # fmt: skip
NOTES = (
    "KB is 1000 bytes, as the file lies on the disk and gzipped (level 9). The interval is "
    "Wilson's; AUC is the mean of one class against the rest; ECE has 15 bins. Latency is "
    "invoke() of one image with one thread, over fresh processes; † marks a median whose "
    "processes differ by more than 10 %. Peak memory is what the process grew by. What a browser "
    "or benchmark_model measured is marked, and ranked only among its own kind."
)
SYNTHETIC = "SYNTHETIC DATA: these images were drawn by a program. No figure here is about blood."
# What the titles of plots begin with that rank models.
AGAINST = "Accuracy against"
PARETO = (
    "Named and joined in the plots is what no other model there beats in both; the others are "
    "faint. An axis says what is not ranked, and why. Bars are 95 % intervals: where they overlap, "
    "the order may be chance."
)
UNNAMED = (
    "No run here holds or evaluates these files. Names and sizes are those that the results give, "
    "and no result says which images were classified."
)
_MARKDOWN = re.compile(r"([\\`*\[\]<>|&~])")


def cells(row: Row, names: Sequence[str]) -> list[str]:
    """Return one row of the comparison as text, in the order of `COLUMNS`."""
    gzip = "" if row.gzip_bytes is None else kilobytes(row.gzip_bytes)
    start = [row.name, row.kind, row.scores.split if row.scores else "", kilobytes(row.bytes)]
    return [*start, gzip, *_score_cells(row.scores, names), *_latency_cells(row)]


def _score_cells(scores: Scores | None, names: Sequence[str]) -> list[str]:
    if scores is None:
        return ["not evaluated", "", "", "", ""]
    auc = "" if scores.auc is None else f"{scores.auc:.4f}"
    worst = f"{percent(scores.recall[scores.worst])} ({names[scores.worst]})"
    return [accuracy(scores), f"{scores.macro_f1:.4f}", auc, f"{scores.ece:.4f}", worst]


def _latency_cells(row: Row) -> list[str]:
    if row.latency is None:
        return [""] * 7
    one, many = row.latency.single, row.latency.all_cores
    cores = f"{micros(many.median_us)} ({many.threads})" if many else ""
    device = row.latency.column
    if one is None:
        return ["", "", "", cores, "", "", device]
    memory = "" if one.peak_rss_kib is None else f"{one.peak_rss_kib / 1024:.1f}"
    first = "" if one.first_ms is None else f"{one.first_ms:.2f}"
    median = micros(one.median_us) + ("†" if one.drift else "")
    return [median, micros(one.p90_us), micros(one.p99_us), cores, memory, first, device]


def percent(share: float) -> str:
    """Return a share in 0..1 as per cent with two decimals."""
    return f"{100 * share:.2f}"


def accuracy(scores: Scores) -> str:
    """Return the accuracy in per cent with its 95 % interval."""
    return (
        f"{percent(scores.accuracy)} [{percent(scores.interval[0])}, {percent(scores.interval[1])}]"
    )


def micros(value: float | None) -> str:
    """Return microseconds with three significant digits or more."""
    if value is None:
        return ""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def class_table(scores: Scores, names: Sequence[str]) -> list[list[str]]:
    """Return images, precision, recall and F1 of each class, under a heading row."""
    rows = [["class", "images", "precision %", "recall %", "F1 %"]]
    for i, name in enumerate(names):
        shares = (scores.precision[i], scores.recall[i], scores.f1[i])
        rows.append([name, f"{sum(scores.confusion[i]):,}", *map(percent, shares)])
    return rows


def results_csv(data: ReportData) -> str:
    """Return every row of every section with its raw values."""
    rows = [raw_values(section, row) for section in data.sections for row in section.rows]
    return csv_text([CSV_COLUMNS, *rows])


def raw_values(section: Section, row: Row) -> list[object]:
    """Return one row with its raw values, in the order of `CSV_COLUMNS`."""
    values: list[object] = [section.fingerprint, section.title, section.synthetic, row.name]
    values += [row.variant, row.family, row.file, row.sha256, row.bytes, row.gzip_bytes]
    s = row.scores
    if s:
        values += [s.split, s.images, s.accuracy, *s.interval, s.macro_f1, s.auc, s.ece]
        values += [section.class_names[s.worst], s.recall[s.worst]]
    values += [None] * (20 - len(values))
    if row.latency:
        one, many = row.latency.single, row.latency.all_cores
        values += [row.latency.device, row.latency.runtime, row.latency.protocol]
        values += [one.median_us, one.p90_us, one.p99_us, one.drift] if one else [None] * 4
        values += [many.threads, many.median_us] if many else [None] * 2
        values += [one.peak_rss_kib, one.load_ms, one.first_ms] if one else [None] * 3
        values += [row.latency.quick]
    return [*values, *[None] * (len(CSV_COLUMNS) - 1 - len(values)), row.failed]


def origin_line(section: Section) -> str:
    """Return which images a section is about."""
    return f"Data fingerprint {section.fingerprint}" if section.fingerprint else UNNAMED


def markdown(
    data: ReportData,
    figures: Sequence[Sequence[tuple[str, str]]],
    parts_of: Sequence[Sequence[Part]],
) -> str:
    """Return the report in Markdown.

    Args:
        data: what to tell.
        figures: for each section, its figures' titles and paths.
        parts_of: for each section, its parts.
    """
    parts = ["# bloodedge report"]
    for section, images, more in zip(data.sections, figures, parts_of, strict=True):
        parts += [f"## {md(section.title)}", f"{md(origin_line(section))}"]
        parts += [f"**{SYNTHETIC}**"] if section.synthetic else []
        rows = [cells(row, section.class_names) for row in section.rows]
        parts += [md_table([list(COLUMNS), *rows]), NOTES]
        for part in more:
            parts += [f"### {md(part.heading)}"]
            parts += [md_table(part.table)] if part.table else []
            parts += [md(note) for note in part.notes]
        parts += [f"![{md(title)}]({path})" for title, path in images]
        compared = any(title.startswith(AGAINST) for title, _ in images)
        parts += [PARETO] if compared else []
        for row, scores in section.best:
            parts += [f"### {md(row.label)}, {scores.split}, by class"]
            parts += [md_table(class_table(scores, section.class_names))]
        parts += _md_origins(section)
    parts += ["## Devices"] if data.origins else []
    parts += [_md_origin(origin.run, origin.kind, origin.facts) for origin in data.origins]
    if data.left_out:
        listed = "\n".join(f"- {md(name)}: {md(why)}" for name, why in data.left_out)
        parts += ["## Left out", listed]
    return "\n\n".join(parts) + "\n"


def _md_origins(section: Section) -> list[str]:
    made = [_md_origin(origin.run, origin.kind, origin.facts) for origin in section.origins]
    return ["### How each was made", *made] if made else []


def _md_origin(run: str, kind: str, facts: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f"\n    - {md(name)}: `{code(text)}`" for name, text in facts)
    return f"- {md(run)} ({md(kind)}){listed}"


def md_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text under a row of headings as a Markdown table."""
    head, *body = ["| " + " | ".join(md(cell) for cell in row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def md(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", text)


def code(text: str) -> str:
    """Return text for between backticks."""
    return text.replace("`", "'")
