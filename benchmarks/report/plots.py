"""A section's plots: accuracy against size, and in each place against latency; learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bloodedge.benchmarks.report.data import Curve, Latency, Row, Section
from bloodedge.benchmarks.report.doubt import doubt, single
from bloodedge.benchmarks.report.figures import Figure, Point, lines, scatter
from bloodedge.benchmarks.report.text import AGAINST
from bloodedge.metrics import wilson_interval

_SMALLEST = 1e-3


class _Scored(NamedTuple):
    """A row with an accuracy, in 0..1, its 95 % interval, and where it stands on the other axis.

    `doubt` is why it cannot be ranked there; empty where it can.
    """

    row: Row
    x: float
    accuracy: float
    interval: tuple[float, float]
    doubt: str = ""


class _Group(NamedTuple):
    """Points with accuracies over the same images, what these are, and how far they are ranked."""

    axis: str
    points: list[_Scored]
    where: str = ""
    limits: str = ""


def section_figures(section: Section) -> list[Figure]:
    """Return accuracy by size, by latency in each place, and learning curves.

    What was measured in different places, or in different ways, is never in one plot.
    """
    mark = " (synthetic)" if section.synthetic else ""
    families = list(dict.fromkeys(row.family for row in section.rows))
    figures = []
    group = _by_size(section)
    if group:
        title = f"{AGAINST} size{mark}"
        figures.append(_plot(title, group.where, "file size, KB", group, families))
    for place, rows in _places(section).items():
        title = f"{AGAINST} latency{mark}"
        group = _by_latency(section, rows)
        if group:
            x = f"median latency, µs, 1 thread{group.limits}"
            figures.append(_plot(title, place, x, group, families, _runtimes(rows)))
    return figures + [figure for curve in section.curves for figure in _curves(curve, mark)]


def _plot(
    title: str,
    subtitle: str,
    x: str,
    group: _Group,
    families: Sequence[str],
    runtimes: Sequence[str] = (),
) -> Figure:
    points = []
    for row, at, accuracy, (low, high), unsure in group.points:
        label = row.label
        if len(runtimes) > 1 and row.latency:
            label += f" {row.latency.delegate or row.latency.runtime}"
        values = (max(at, _SMALLEST), 100 * accuracy, 100 * low, 100 * high)
        points.append(
            Point(label, *values, families.index(row.family), row.family, ranked=not unsure)
        )
    return Figure(title, scatter(points, title, x, group.axis, subtitle))


def _by_size(section: Section) -> _Group | None:
    """Return all models by size, with the accuracies of the most of them that can be compared."""
    sizes = [(row, row.bytes / 1000) for row in section.models]
    groups = [_evaluated(section, sizes)]
    rows = [*section.rows, *section.emulated]
    for column in dict.fromkeys(row.latency.column for row in rows if row.latency):
        here = [row for row in rows if row.latency and row.latency.column == column]
        groups += _on_device([(row, row.bytes / 1000) for row in here], f"as {column} answers")
    return _largest(groups)


def _by_latency(section: Section, rows: Sequence[Row]) -> _Group | None:
    timed = []
    for row in rows:
        one = single(row.latency) if row.latency else None
        if one and one.row.median_us:
            timed.append((row, one.row.median_us))
    group = _largest([_evaluated(section, timed), *_on_device(timed, "")])
    return _judged(group) if group else None


def _judged(group: _Group) -> _Group:
    """Say of each point, and of those without doubt together, what forbids to rank latencies."""
    points, sure = [], []
    for point in group.points:
        if point.row.latency and (timing := single(point.row.latency)):
            unsure = doubt(timing) or ("medians that drift" if timing.row.drift else "")
            points.append(point._replace(doubt=unsure))
            sure += [] if unsure else [timing]
    reasons = dict.fromkeys(point.doubt for point in points if point.doubt)
    limits = f", not ranked: {' and '.join(reasons)}" if reasons else ""
    apart = doubt(*sure)
    limits += f", {apart}" if apart else ""
    return group._replace(points=points, limits=limits)


def _largest(groups: Sequence[_Group]) -> _Group | None:
    """Return the group with the most points, of equals the first; one point is no comparison."""
    best = max(groups, key=lambda group: len(group.points))
    return best if len(best.points) > 1 else None


def _evaluated(section: Section, rows: Sequence[tuple[Row, float]]) -> _Group:
    """Return the rows that were evaluated on the section's split."""
    points = [
        _Scored(row, x, row.scores.accuracy, row.scores.interval)
        for row, x in rows
        if row.scores and row.scores.split == section.split
    ]
    return _Group(f"{section.split} accuracy, %", points)


def _on_device(rows: Sequence[tuple[Row, float]], where: str) -> list[_Group]:
    """Return the rows by the number of images that the device classified."""
    found: dict[int, list[_Scored]] = {}
    for row, x in rows:
        for one in (row.latency.single, row.latency.all_cores) if row.latency else ():
            if one and one.accuracy is not None:
                interval = wilson_interval(round(one.accuracy * one.images), one.images)
                point = _Scored(row, x, one.accuracy, interval)
                found.setdefault(one.images, []).append(point)
                break
    return [_Group(f"accuracy of {n:,} images, %", points, where) for n, points in found.items()]


def _places(section: Section) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in section.rows:
        if row.latency:
            found.setdefault(row.latency.place, []).append(row)
    return found


def _runtimes(rows: Sequence[Row]) -> list[str]:
    latencies: list[Latency] = [row.latency for row in rows if row.latency]
    return list(dict.fromkeys(latency.runtime for latency in latencies))


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
