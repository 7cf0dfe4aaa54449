"""What an inference takes by a power meter's log, or why the log does not tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import floor, log10

from bloodedge.benchmarks.report.data import Latency, Row, Section
from bloodedge.benchmarks.report.part import Line, Part
from bloodedge.benchmarks.report.power import Energy, PowerLog, Span, energy
from bloodedge.benchmarks.result import BenchmarkRow

# The part's name.
ENERGY = "energy"
_NOTE = (
    "Energy beyond idling: (mean power while timed - idle power) x time / inferences, with the "
    "95 % interval that the scatter of the samples gives. The meter's own accuracy, and a "
    "difference between its clock and the device's, come on top. Idle power is from before and "
    "after the benchmark."
)
_HEAD = ("model", "place", "threads", "mJ an inference", "W while timed", "W idle", "samples")
_RAW = (
    *("model", "variant", "place", "threads", "millijoule", "plus_minus"),
    *("active_w", "idle_w", "samples", "why_not"),
)


@dataclass(frozen=True)
class Meter:
    """A log, and what else is needed to read it.

    Attributes:
        log: what the meter wrote.
        busy: when benchmarks ran.
        devices: those that were timed while it recorded.
    """

    log: PowerLog
    busy: tuple[Span, ...]
    devices: tuple[str, ...]


def meter(log: PowerLog, sections: Sequence[Section]) -> Meter:
    """Return a log with when it has to do with which device."""
    timed = [pair for section in sections for pair in _timed_rows(section)]
    found = {row.latency.device for row, one in timed if row.latency and _touched(log, one)}
    return Meter(log, tuple(_busy(timed)), tuple(sorted(found)))


def energy_part(section: Section, meter: Meter | None) -> Part | None:
    """Return the energies, or nothing without a meter or without anything timed."""
    rows = list(_timed_rows(section))
    if meter is None or not rows:
        return None
    if len(meter.devices) > 1:
        where = " and ".join(meter.devices)
        why = f"{meter.log.name} was recorded while {where} were timed, and hangs on one of them"
        return Part(ENERGY, "Energy", notes=(f"No energy: {why}; report each device alone.",))
    body: list[Line] = []
    reasons: dict[tuple[str, str], list[str]] = {}
    raw: list[tuple[object, ...]] = [_RAW]
    for row, one in rows:
        place = row.latency.column if row.latency else ""
        found = _measure(meter, row.latency, one)
        named = (row.name, row.variant, place, one.threads)
        if isinstance(found, Energy):
            body.append((row.label, place, str(one.threads), *_shown(found)))
            raw.append((*named, *found, ""))
        else:
            reasons.setdefault((place, found), []).append(_timing(row, one))
            raw.append((*named, *[None] * 5, found))
    notes = [_NOTE] if body else []
    for (place, why), timings in reasons.items():
        which = f"{len(timings)} timings" if len(timings) > 2 else " and ".join(timings)
        notes.append(f"No energy of {which} on {place}: {why}.")
    table = (_HEAD, *body) if body else ()
    return Part(ENERGY, "Energy", table, tuple(notes), frozenset({0, 1}), tuple(raw))


def _measure(meter: Meter, latency: Latency | None, one: BenchmarkRow) -> Energy | str:
    if one.timed:
        return energy(meter.log, one.timed, meter.busy)
    if latency and latency.protocol != "runner":
        return f"the {latency.protocol} driver cannot tell when the device was timing"
    return (
        "the result does not say when it was timed, or the device's clock was set meanwhile: "
        "measure again with this version's runner"
    )


def _timing(row: Row, one: BenchmarkRow) -> str:
    return f"{row.label} ({one.threads} thread{'s' * (one.threads > 1)})"


def _busy(timed: Sequence[tuple[Row, BenchmarkRow]]) -> Iterator[Span]:
    """Yield when each benchmark ran, shown or not; its clock is recorded in whole seconds."""
    found: dict[str, list[float]] = {}
    shown = [row.latency for row, _ in timed if row.latency]
    for latency in (other for one in shown for other in (*one.results, *one.superseded)):
        times = found.setdefault(latency.source, [])
        for one in filter(None, (latency.single, latency.all_cores)):
            times += [second for when in one.timed for second in (when.begin_s, when.end_s)]
        times += [_epoch(when) + 1 for when in (latency.until,) if when]
        times += [_epoch(when) for when in (latency.when,) if when]
    for times in filter(None, found.values()):
        yield min(times), max(times)


def _timed_rows(section: Section) -> Iterator[tuple[Row, BenchmarkRow]]:
    for row in section.rows:
        for one in (row.latency.single, row.latency.all_cores) if row.latency else ():
            if one and one.median_us is not None:
                yield row, one


def _touched(log: PowerLog, one: BenchmarkRow) -> bool:
    return log.overlaps([(timed.begin_s, timed.end_s) for timed in one.timed])


def _shown(found: Energy) -> tuple[str, ...]:
    low = found.millijoule - found.plus_minus
    unsure = "" if low > 0 else ", not above idling"
    # Two digits of the interval, and as many decimals of the energy.
    digits = max(0, 1 - floor(log10(found.plus_minus)))
    return (
        f"{found.millijoule:.{digits}f} ± {found.plus_minus:.{digits}f}{unsure}",
        f"{found.active_w:.2f}",
        f"{found.idle_w:.2f}",
        f"{found.samples:,}",
    )


def _epoch(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()
