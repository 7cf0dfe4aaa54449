"""What int8 brought against float32 in each place, and what is known of why it was slower."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bloodedge.benchmarks.report.data import Latency, Row, Section
from bloodedge.benchmarks.report.doubt import LEAST_PROCESSES, all_cores, doubt, single
from bloodedge.benchmarks.report.part import Line, Part
from bloodedge.benchmarks.report.reasons import ModelFiles, reasons
from bloodedge.benchmarks.report.text import micros
from bloodedge.benchmarks.result import BenchmarkRow

_NOTE = (
    "Both files are of one model, by the run that exported them or else by their names, and "
    f"measured in one place with as many threads; which is faster takes {LEAST_PROCESSES} "
    "processes of each to tell, in one run on a quiet machine. What is said of slower ones is what "
    "the files, the runtime and the result show that may cost int8 time, from bloodedge lint and "
    "the result: no guess, and no measurement of each cause."
)
_HEAD = ("model", "place", "threads", "float32 µs", "int8 µs", "int8 / float32")
_RAW = (*_HEAD[:3], "float32_us", "int8_us", "ratio", "verdict", "why")


class Pair(NamedTuple):
    """A model's float32 and int8 file in one place, and their figures with as many threads.

    `doubt` is why the figures tell nothing; empty where they do.
    """

    float32: Row
    int8: Row
    place: Latency
    before: BenchmarkRow
    after: BenchmarkRow
    doubt: str

    @property
    def ratio(self) -> float:
        """The int8 file's median as a multiple of the float32 one's."""
        return (self.after.median_us or 0.0) / (self.before.median_us or 1.0)

    @property
    def noise(self) -> float:
        """By how much the medians of the processes differ, relative, in the noisier of the two."""
        return max(self.before.spread or 0.0, self.after.spread or 0.0)

    @property
    def verdict(self) -> str:
        """Which is faster, if processes of one file differ less than the two files do.

        It is `unknown` where nothing can be concluded from the two.
        """
        if self.doubt:
            return "unknown"
        if abs(self.ratio - 1) <= self.noise:
            return "no difference"
        return "slower" if self.ratio > 1 else "faster"


def int8_part(section: Section, files: ModelFiles) -> Part | None:
    """Return the comparison, or nothing where no model has both files in one place.

    Args:
        section: what was measured.
        files: where to find the .tflite of a digest.
    """
    pairs = find_pairs(section)
    if not pairs:
        return None
    body: list[Line] = []
    raw: list[tuple[object, ...]] = [_RAW]
    causes: dict[tuple[str, str], list[str]] = {}
    for pair in pairs:
        model, place, before, after = pair.int8.name, pair.place.column, pair.before, pair.after
        threads = str(after.threads)
        shown = f"{model}{pair.int8.gate}"
        body.append((shown, place, threads, _timed(before), _timed(after), _says(pair)))
        why = _why(pair, files)
        medians = before.median_us, after.median_us
        raw.append((model, place, threads, *medians, round(pair.ratio, 4), pair.verdict, why))
        if why:
            causes.setdefault((model, why), []).append(place)
    slower = [
        f"{model} is slower in int8 on {' and on '.join(places)}: {why}."
        for (model, why), places in causes.items()
    ]
    words = frozenset({0, 1, 5})
    return Part("int8", "int8 against float32", (_HEAD, *body), (_NOTE, *slower), words, tuple(raw))


def find_pairs(section: Section) -> list[Pair]:
    """Return every int8 row with the float32 row of the same model in the same place."""
    found = []
    for int8 in (row for row in section.rows if row.variant == "int8"):
        twins = [row for row in section.rows if _is_twin(row, int8)]
        twins.sort(key=lambda row: _distance(row, int8))
        for twin in twins[:1]:
            both = (_figures(a, b) for a, b in _runs(twin, int8))
            if figures := next(filter(None, both), None):
                found.append(Pair(twin, int8, *figures))
    return sorted(found, key=lambda pair: -pair.ratio)


def _distance(float32: Row, int8: Row) -> tuple[bool, bool, bool]:
    """Return how far a float32 file is from being the int8 one's own, the nearest least.

    It is the nearest of the same model and beside it; then one whose processes took turns with its.
    """
    apart = float32.parent != int8.parent, float32.home != int8.home
    return *apart, not _together(float32, int8)


def _is_twin(row: Row, int8: Row) -> bool:
    return (
        row.variant == "float32"
        and row.latency is not None
        and int8.latency is not None
        and row.model == int8.model
        and (row.parent == int8.parent or not (row.parent and int8.parent))
        and row.latency.column == int8.latency.column
    )


def _together(row: Row, other: Row) -> bool:
    return bool(row.latency and other.latency and row.latency.source == other.latency.source)


def _runs(float32: Row, int8: Row) -> Iterator[tuple[Latency, Latency]]:
    """Yield the two files' latencies: those of one run, shown or not, come before any others."""
    if float32.latency is None or int8.latency is None:
        return
    ones, others = (
        (*shown.results, *reversed(shown.superseded)) for shown in (float32.latency, int8.latency)
    )
    yield from ((a, b) for b in others for a in ones if a.source == b.source)
    yield float32.latency, int8.latency


def _figures(a: Latency, b: Latency) -> tuple[Latency, BenchmarkRow, BenchmarkRow, str] | None:
    """Return both files' figures with one thread, or else with the same number of threads.

    Before them stands where the second was measured, after them why they tell nothing.
    """
    for before, after in ((single(a), single(b)), (all_cores(a), all_cores(b))):
        if before and after:
            same = before.row.threads == after.row.threads
            return (after.result, before.row, after.row, doubt(before, after)) if same else None
    return None


def _timed(row: BenchmarkRow) -> str:
    return micros(row.median_us) + ("†" if row.drift else "")


def _says(pair: Pair) -> str:
    if pair.doubt:
        return f"{pair.ratio:.2f}, {pair.verdict}: {pair.doubt}"
    if pair.verdict == "no difference":
        return f"{pair.ratio:.2f}, no difference: processes differ by {100 * pair.noise:.0f} %"
    return f"{pair.ratio:.2f}, {pair.verdict}"


def _why(pair: Pair, files: ModelFiles) -> str:
    """Return what is known of why int8 is slower; empty where it is not."""
    if pair.verdict != "slower":
        return ""
    return "; ".join(reasons(pair.float32, pair.int8, pair.place, _accelerated(pair), files))


def _accelerated(pair: Pair) -> tuple[bool | None, bool | None]:
    return pair.before.xnnpack, pair.after.xnnpack
