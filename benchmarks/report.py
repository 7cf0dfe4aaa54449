"""`bloodedge report`: every run and benchmark, joined and compared, as files to read and share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bloodedge.benchmarks.report_collect import collect
from bloodedge.benchmarks.report_data import Curve, ReportData, Row, Section
from bloodedge.benchmarks.report_figures import Figure, Point, lines, scatter, standalone
from bloodedge.benchmarks.report_html import html
from bloodedge.benchmarks.report_text import accuracy, kilobytes, markdown, micros, results_csv
from bloodedge.errors import BloodedgeError, ConfigError, DataError, RunError
from bloodedge.files import write_text
from bloodedge.runs import MANIFEST, Run, load_run, runs_root

if TYPE_CHECKING:
    from rich.table import Table

HTML_FILE, MARKDOWN_FILE, CSV_FILE = "report.html", "report.md", "results.csv"
_FIGURE = "figure-{section}-{number}.svg"
_OWN = re.compile(r"report\.(html|md)|results\.csv|figure-\d+-\d+\.svg")


@dataclass(frozen=True)
class ReportConfig:
    """What to report on and where to put it.

    Attributes:
        runs: names or folders of runs; none for all in the runs folder.
        results: JSON files that a device's runner wrote.
        out: the folder to write into.
        force: replace an earlier report there.

    Raises:
        ConfigError: a run or a result is named twice.
    """

    runs: tuple[str, ...] = ()
    results: tuple[Path, ...] = ()
    out: Path = Path("report")
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse names that would count twice."""
        for names in (self.runs, self.results):
            if len(set(names)) < len(names):
                raise ConfigError("a run or a result is named twice", fix="name each once")


@dataclass(frozen=True)
class Report:
    """What was written: the page, and what it tells."""

    page: Path
    data: ReportData

    @property
    def rows(self) -> list[Row]:
        """The rows of all sections."""
        return [row for section in self.data.sections for row in section.rows]


def report(config: ReportConfig) -> Report:
    """Write `report.html`, `report.md`, `results.csv` and the figures.

    Raises:
        RunError: a named run is missing or damaged, or a report is there and `force` is not given.
        DataError: a result is damaged, or there is nothing to report.
    """
    _check_out(config)
    runs, left_out = _named(config.runs) if config.runs else _all_runs()
    data = collect(runs, config.results)
    data = replace(data, left_out=(*left_out, *data.left_out))
    if not data.sections:
        reasons = "; ".join(f"{name}: {why}" for name, why in data.left_out)
        raise DataError(
            f"no run to report on in {runs_root()}" + (f" ({reasons})" if reasons else ""),
            fix="bloodedge train, export or evaluate something first",
        )
    return Report(_write(config.out, data), data)


def _check_out(config: ReportConfig) -> None:
    if config.out.exists() and not config.out.is_dir():
        raise RunError(f"{config.out} is not a folder", fix="choose another --out")
    if _own_files(config.out) and not config.force:
        raise RunError(f"{config.out} holds a report", fix="choose another --out, or add --force")


def _own_files(folder: Path) -> list[Path]:
    """Return what an earlier report wrote; everything else in the folder is left alone."""
    return [p for p in sorted(folder.glob("*")) if _OWN.fullmatch(p.name) and p.is_file()]


def _named(names: Sequence[str]) -> tuple[list[Run], list[tuple[str, str]]]:
    """Return the runs of those names; one that is damaged is an error, because it was asked for."""
    runs = []
    for name in names:
        folders = (Path(name), runs_root() / name)
        folder = next((f for f in folders if (f / MANIFEST).is_file()), None)
        if folder is None:
            raise RunError(f"no run {name!r}", expected=f"a folder, or a name in {runs_root()}")
        runs.append(load_run(folder))
    return runs, []


def _all_runs() -> tuple[list[Run], list[tuple[str, str]]]:
    """Return every run; a damaged one does not keep the others from being reported."""
    runs, left_out = [], []
    for path in sorted(runs_root().glob(f"[!.]*/{MANIFEST}")):
        try:
            runs.append(load_run(path.parent))
        except BloodedgeError as error:
            left_out.append((path.parent.name, str(error)))
    return runs, left_out


def _write(out: Path, data: ReportData) -> Path:
    figures = [section_figures(section) for section in data.sections]
    for old in _own_files(out):
        old.unlink()
    listed = []
    for s, images in enumerate(figures, 1):
        names = [_FIGURE.format(section=s, number=n) for n in range(1, len(images) + 1)]
        for name, figure in zip(names, images, strict=True):
            write_text(out / name, standalone(figure.svg))
        listed.append([(f.title, name) for f, name in zip(images, names, strict=True)])
    write_text(out / CSV_FILE, results_csv(data))
    write_text(out / MARKDOWN_FILE, markdown(data, listed))
    write_text(out / HTML_FILE, html(data, figures))
    return out / HTML_FILE


def section_figures(section: Section) -> list[Figure]:
    """Return a section's figures: accuracy by size, by latency on each device, and curves."""
    families = list(dict.fromkeys(row.family for row in section.rows))
    mark = " (synthetic)" if section.synthetic else ""
    y = f"{section.split} accuracy, %"
    figures = []
    points = [_point(row, row.bytes / 1000, families) for row, _ in section.scored]
    if len(points) > 1:
        title = f"Accuracy against size{mark}"
        figures.append(Figure(title, scatter(points, title, "file size, KB", y)))
    for device, timed in _by_device(section).items():
        title = f"Accuracy against latency{mark}"
        points = [_point(row, us, families) for row, us in timed]
        x = f"median latency, µs, 1 thread, {device}"[:80]
        figures.append(Figure(title, scatter(points, title, x, y)))
    return figures + [figure for curve in section.curves for figure in _curves(curve, mark)]


def _by_device(section: Section) -> dict[str, list[tuple[Row, float]]]:
    found: dict[str, list[tuple[Row, float]]] = {}
    for row in section.rows:
        one = row.latency.single if row.latency else None
        compared = row.scores is not None and row.scores.split == section.split
        if compared and row.latency and one and one.median_us:
            found.setdefault(row.latency.place, []).append((row, one.median_us))
    return found


def _point(row: Row, x: float, families: Sequence[str]) -> Point:
    if row.scores is None:
        raise ValueError("a row without figures has no place in a plot")
    low, high = (100 * bound for bound in row.scores.interval)
    at = 100 * row.scores.accuracy
    return Point(row.label, max(x, 1e-3), at, low, high, families.index(row.family))


def _curves(curve: Curve, mark: str) -> list[Figure]:
    """Return a run's accuracy and loss by epoch, as far as its history has them."""
    figures = []
    for name, scale, unit in (("accuracy", 100.0, ", %"), ("loss", 1.0, "")):
        found = {
            split: [scale * value for value in curve.columns[f"{split}_{name}"]]
            for split in ("train", "val")
            if f"{split}_{name}" in curve.columns
        }
        if found:
            title = f"{curve.run}: {name}{mark}"
            figures.append(Figure(title, lines(found, title, "epoch", f"{name}{unit}"), True))
    return figures


def summary_table(rows: Sequence[Row]) -> Table:
    """Return the comparison in short, for a terminal; what all rows share is in the caption."""
    from rich.markup import escape
    from rich.table import Table

    devices = {row.latency.place for row in rows if row.latency}
    splits = {row.scores.split for row in rows if row.scores}
    shared = [*splits] if len(splits) == 1 else []
    shared += [*devices] if len(devices) == 1 else []
    table = Table(caption=escape(", ".join(shared)) or None)
    table.add_column("model")
    table.add_column("variant")
    table.add_column(r"accuracy % \[95 %]", no_wrap=True)
    table.add_column("KB", justify="right", no_wrap=True)
    table.add_column("µs, 1 thread", justify="right")
    if len(devices) > 1:
        table.add_column("device")
    for row in rows:
        score = accuracy(row.scores) if row.scores else "not evaluated"
        score += f" {row.scores.split}" if row.scores and len(splits) > 1 else ""
        one = row.latency.single if row.latency else None
        line = [row.model, row.variant, score, kilobytes(row.bytes)]
        line += [micros(one.median_us) if one else ""]
        line += [row.latency.place if row.latency else ""] if len(devices) > 1 else []
        table.add_row(*map(escape, line))
    return table
