"""`bloodedge report`: every run and benchmark, joined and compared, as files to read and share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bloodedge.benchmarks.report.collect import collect
from bloodedge.benchmarks.report.data import ReportData, Row
from bloodedge.benchmarks.report.energy import ENERGY, meter
from bloodedge.benchmarks.report.figures import standalone
from bloodedge.benchmarks.report.html import html
from bloodedge.benchmarks.report.part import Part
from bloodedge.benchmarks.report.plots import section_figures
from bloodedge.benchmarks.report.power import PowerLog, read_power
from bloodedge.benchmarks.report.read import text
from bloodedge.benchmarks.report.reasons import model_files
from bloodedge.benchmarks.report.sections import Evidence, section_parts
from bloodedge.benchmarks.report.sources import all_runs, named
from bloodedge.benchmarks.report.text import accuracy, markdown, micros, results_csv
from bloodedge.errors import ConfigError, DataError, RunError
from bloodedge.files import atomic_path, csv_text
from bloodedge.references import zoo_folders
from bloodedge.runs import runs_root
from bloodedge.text import kilobytes

if TYPE_CHECKING:
    from rich.table import Table

HTML_FILE, MARKDOWN_FILE, CSV_FILE = "report.html", "report.md", "results.csv"
_FIGURE = "figure-{section}-{number}.svg"
_PART = "table-{name}-{section}.csv"
_OWN = re.compile(r"report\.(html|md)|results\.csv|figure-\d+-\d+\.svg|table-[a-z0-9]+-\d+\.csv")


@dataclass(frozen=True)
class ReportConfig:
    """What to report on and where to put it.

    Attributes:
        runs: names or folders of runs, JSON files that a device's runner or a driver wrote, and
            folders of manifests and results that were recorded; none for all runs in the runs
            folder.
        results: more such JSON files, beside the runs.
        power: a power meter's log, recorded while one of the devices was measured.
        out: the folder to write into.
        force: replace an earlier report there.

    Raises:
        ConfigError: a run or a result is named twice.
    """

    runs: tuple[str, ...] = ()
    results: tuple[Path, ...] = ()
    power: Path | None = None
    out: Path = Path("report")
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse names that would count twice."""
        names = [*map(Path, self.runs), *self.results]
        if len(set(names)) < len(names):
            raise ConfigError("a run or a result is named twice", fix="name each once")


@dataclass(frozen=True)
class Report:
    """What was written: the page, what it tells, and each section's parts."""

    page: Path
    data: ReportData
    parts: tuple[tuple[Part, ...], ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The rows of all sections."""
        return [row for section in self.data.sections for row in section.rows]


def report(config: ReportConfig) -> Report:
    """Write `report.html`, `report.md`, `results.csv`, a CSV for each part, and the figures.

    What is damaged is left out; `Report.data.bad` names it.

    Raises:
        RunError: a named run or result is missing, or a report is there and `force` is not given.
        DataError: there is nothing to report.
        BloodedgeError: it cannot be written; an earlier report there is then left as it was.
    """
    _check_out(config)
    sources = named(config.runs) if config.runs else all_runs([runs_root()])
    # Files are looked for in all runs, also where only results are named, and in the zoo.
    others = all_runs([*zoo_folders(), runs_root()]).runs
    data = collect(sources.runs, [*sources.results, *config.results], others)
    log, unread = _power(config.power)
    damaged = [*sources.damaged, *unread]
    bad = (*(name for name, _ in damaged), *data.bad)
    data = replace(data, left_out=(*damaged, *data.left_out), bad=bad)
    if not data.sections:
        reasons = "; ".join(f"{name}: {why}" for name, why in data.left_out)
        raise DataError(
            f"no run to report on in {runs_root()}" + (f" ({reasons})" if reasons else ""),
            fix="" if reasons else "bloodedge train, export or evaluate something first",
        )
    evidence = Evidence(
        model_files([*others, *sources.runs]), meter(log, data.sections) if log else None
    )
    parts = tuple(tuple(section_parts(section, evidence)) for section in data.sections)
    if log and not any(part.name == ENERGY for more in parts for part in more):
        unused = (log.name, "nothing here was timed on a device, so it tells no energy")
        data = replace(data, left_out=(*data.left_out, unused))
    return Report(_write(config.out, data, parts), data, parts)


def _power(path: Path | None) -> tuple[PowerLog | None, list[tuple[str, str]]]:
    """Return a meter's log, or the reason why it is left out."""
    try:
        return (read_power(path) if path else None), []
    except DataError as error:
        return None, [(text(path.name if path else ""), text(error))]


def _check_out(config: ReportConfig) -> None:
    if config.out.exists() and not config.out.is_dir():
        raise RunError(f"{config.out} is not a folder", fix="choose another --out")
    if _own_files(config.out) and not config.force:
        raise RunError(f"{config.out} holds a report", fix="choose another --out, or add --force")


def _own_files(folder: Path) -> list[Path]:
    """Return what an earlier report wrote; everything else in the folder is left alone."""
    return [p for p in sorted(folder.glob("*")) if _OWN.fullmatch(p.name) and p.is_file()]


def _write(out: Path, data: ReportData, parts: Sequence[Sequence[Part]]) -> Path:
    files = _contents(data, parts)
    with ExitStack() as whole:
        # Each takes its place only when all are on the disk: a full one costs no old report.
        for name, content in files.items():
            temporary = whole.enter_context(atomic_path(out / name))
            temporary.write_text(content, encoding="utf-8")
    for old in _own_files(out):
        if old.name not in files:
            old.unlink()
    return out / HTML_FILE


def _contents(data: ReportData, parts: Sequence[Sequence[Part]]) -> dict[str, str]:
    """Return the text of each file by its name."""
    figures = [section_figures(section) for section in data.sections]
    files: dict[str, str] = {}
    listed = []
    for number, (images, more) in enumerate(zip(figures, parts, strict=True), 1):
        every = [*(figure for part in more for figure in part.figures), *images]
        named = {_FIGURE.format(section=number, number=i): one for i, one in enumerate(every, 1)}
        files |= {name: standalone(figure.svg) for name, figure in named.items()}
        listed.append([(figure.title, name) for name, figure in named.items()])
        for part in (part for part in more if part.raw):
            files[_PART.format(name=part.name, section=number)] = csv_text(part.raw)
    files[CSV_FILE] = results_csv(data)
    files[MARKDOWN_FILE] = markdown(data, listed, parts)
    return files | {HTML_FILE: html(data, figures, parts)}


def summary_table(rows: Sequence[Row], title: str) -> Table:
    """Return the comparison in short, for a terminal; what all rows share is in the caption.

    Where there are several devices, what each has measured is left to their own table.
    """
    from bloodedge.tables import table

    devices = {row.latency.place for row in rows if row.latency}
    splits = {row.scores.split for row in rows if row.scores}
    shared = [*splits] if len(splits) == 1 else []
    shared += [*devices] if len(devices) == 1 else []
    timed = len(devices) < 2
    head = ("model", "variant", "accuracy % [95 %]", "KB", *(["µs, 1 thread"] if timed else []))
    lines = []
    for row in rows if timed else {row.sha256: row for row in rows}.values():
        score = accuracy(row.scores) if row.scores else "not evaluated"
        score += f" {row.scores.split}" if row.scores and len(splits) > 1 else ""
        one = row.latency.single if row.latency else None
        latency = [micros(one.median_us) if one else ""] if timed else []
        lines.append((row.name, row.kind, score, kilobytes(row.bytes), *latency))
    return table(head, lines, words=("variant",), title=title, caption=", ".join(shared))
