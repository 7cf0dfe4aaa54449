"""How far each model is from what its device can do at most: the roofline.

An inference of some multiply-accumulates and bytes takes at least as long as the arithmetic at the
measured peak of one large matrix product, and at least as long as moving the bytes at the measured
speed of a copy; whichever is longer binds it (S. Williams et al., Communications of the ACM 52(4),
2009). Both peaks are the device's own, measured in the same run with as many threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bloodedge.benchmarks.machine import Peaks
from bloodedge.benchmarks.model_work import Work
from bloodedge.benchmarks.report.data import Latency, Row, Section
from bloodedge.benchmarks.report.part import Part
from bloodedge.benchmarks.report.roofline_figure import Mark, Roof, roofline_figure
from bloodedge.benchmarks.report.text import micros
from bloodedge.benchmarks.result import BenchmarkRow
from bloodedge.text import kilobytes

_NOTE = (
    "The limit is the longer of two times: all multiply-accumulates (MACs) at the peak of a large "
    "matrix product, int8 and float32 each at its own, and all bytes that the operators read and "
    "write at the speed of a copy of that size, both measured on the device in the same run. "
    "Small layers cannot reach the peak of a large one, and starting each operator takes time that "
    "no limit counts."
)
_OVER = (
    "A share above 100 % says that the limit is set too low: kernels kept data in registers or "
    "caches, or the machine was disturbed while its peaks were measured."
)
_HEAD = (
    "model", "threads", "MMAC", "KB moved", "MAC/byte", "bound by", "limit µs", "median µs",
    "of it %",
)  # fmt: skip
_RAW = (
    "model", "variant", "sha256", "place", "threads", "macs_int8", "macs_float", "traffic_bytes",
    "resident_bytes", "peak_int8_gmacs", "peak_float_gmacs", "copy_gb_s", "compute_us", "memory_us",
    "bound_by", "median_us", "share",
)  # fmt: skip


class Bound(NamedTuple):
    """One model in one place with some number of threads, against its limit.

    Attributes:
        row: the model.
        place: where it was timed.
        timed: its figures.
        work: what one inference takes.
        peaks: what the machine can do.
        compute_us: the least time of the arithmetic.
        memory_us: the least time of moving the bytes.
    """

    row: Row
    place: Latency
    timed: BenchmarkRow
    work: Work
    peaks: Peaks
    compute_us: float
    memory_us: float

    @property
    def limit_us(self) -> float:
        """The least time."""
        return max(self.compute_us, self.memory_us)

    @property
    def bound_by(self) -> str:
        """What sets the limit."""
        return "compute" if self.compute_us >= self.memory_us else "memory"

    @property
    def median_us(self) -> float:
        """How long it takes."""
        return self.timed.median_us or 0.0

    @property
    def share(self) -> float:
        """How much of the limit is reached: 1 is as fast as can be."""
        return self.limit_us / self.median_us


def roofline_part(section: Section) -> Part | None:
    """Return the table and a figure for each place, or nothing where no peaks were measured."""
    found = bounds(section)
    if not found:
        return None
    notes = [_NOTE] + ([_OVER] if any(bound.share > 1 for bound in found) else [])
    places = list(dict.fromkeys(bound.place.column for bound in found))
    several = len(places) > 1
    heading = "How far from the physical limit"
    table = [_HEAD, *map(_line, found)]
    if several:
        table = [
            (*line, place) for line, place in zip(table, ["place", *_places(found)], strict=True)
        ]
    return Part(
        "roofline",
        heading if several else f"{heading}: {places[0]}",
        tuple(table),
        tuple(notes),
        frozenset({0, 5, len(_HEAD)}),
        (_RAW, *(_raw(bound) for bound in found)),
        tuple(
            roofline_figure(place, roofs, marks, synthetic=section.synthetic)
            for place, roofs, marks in _figures(found)
        ),
    )


def _places(found: Sequence[Bound]) -> list[str]:
    return [bound.place.column for bound in found]


def bounds(section: Section) -> list[Bound]:
    """Return every timing whose work and machine's peaks are known, by place, the best first."""
    found = []
    for row in section.rows:
        place = row.latency
        for timed in (place.single, place.all_cores) if place else ():
            bound = _bound(row, place, timed) if place and timed else None
            found += [bound] if bound else []
    return sorted(found, key=lambda b: (b.place.column, b.timed.threads, -b.share))


def _bound(row: Row, place: Latency, timed: BenchmarkRow) -> Bound | None:
    peaks = next((peaks for peaks in place.peaks if peaks.threads == timed.threads), None)
    work = timed.work
    if peaks is None or work is None or not timed.median_us or not work.macs:
        return None
    compute_us = 0.0
    for macs, peak in ((work.macs_int8, peaks.int8_gmacs), (work.macs_float, peaks.float_gmacs)):
        if macs and peak is None:
            return None
        compute_us += macs / (1e3 * peak) if peak else 0.0
    memory_us = work.traffic_bytes / (1e3 * peaks.bandwidth(work.resident_bytes))
    return Bound(row, place, timed, work, peaks, compute_us, memory_us)


def _line(bound: Bound) -> tuple[str, ...]:
    work = bound.work
    return (
        bound.row.label,
        str(bound.timed.threads),
        f"{work.macs / 1e6:,.2f}",
        kilobytes(work.traffic_bytes),
        f"{work.macs / max(1, work.traffic_bytes):.1f}",
        bound.bound_by,
        f"{bound.limit_us:,.1f}",
        micros(bound.median_us) + ("†" if bound.timed.drift else ""),
        f"{100 * bound.share:.1f}",
    )


def _raw(bound: Bound) -> tuple[object, ...]:
    row, work, peaks = bound.row, bound.work, bound.peaks
    return (
        *(row.name, row.variant, row.sha256, bound.place.column, bound.timed.threads),
        *(work.macs_int8, work.macs_float, work.traffic_bytes, work.resident_bytes),
        *(peaks.int8_gmacs, peaks.float_gmacs, peaks.bandwidth(work.resident_bytes)),
        *(round(bound.compute_us, 3), round(bound.memory_us, 3), bound.bound_by),
        *(bound.median_us, round(bound.share, 4)),
    )


def _figures(found: Sequence[Bound]) -> list[tuple[str, list[Roof], list[Mark]]]:
    """Return each place's roofs and models: a place here is a device with some threads."""
    groups: dict[tuple[str, int], list[Bound]] = {}
    for bound in found:
        groups.setdefault((bound.place.column, bound.timed.threads), []).append(bound)
    families = list(dict.fromkeys(bound.row.family for bound in found))
    figures = []
    for (column, threads), group in groups.items():
        peaks = group[0].peaks
        near, far = peaks.copies[0][1], peaks.copies[-1][1]
        roofs = [Roof("int8", peaks.int8_gmacs, near)] if peaks.int8_gmacs else []
        roofs += [Roof("float32", peaks.float_gmacs, near)] if peaks.float_gmacs else []
        highest = max(roof.gmacs for roof in roofs)
        roofs.append(Roof("from memory", highest, far, dashed=True))
        marks = [
            Mark(
                bound.row.label,
                bound.work.macs / max(1, bound.work.traffic_bytes),
                bound.work.macs / (1e3 * bound.median_us),
                families.index(bound.row.family),
            )
            for bound in group
        ]
        plural = "s" if threads > 1 else ""
        figures.append((f"{column}, {threads} thread{plural}", roofs, marks))
    return figures
