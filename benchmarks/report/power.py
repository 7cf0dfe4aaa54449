"""A power meter's log, and what one inference takes by it.

A log is a CSV with a row of headings. Its columns are `time`, and `watts` or both `volts` and
`amperes`; others are ignored. Times are seconds since 1970, or ISO 8601, which is UTC unless it
says otherwise.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bloodedge.benchmarks.processes import Timed
from bloodedge.benchmarks.quantile import student_t
from bloodedge.errors import DataError

COLUMNS = "time, and watts or volts and amperes"
MAX_BYTES = 64 << 20
_MAX_SAMPLES = 2_000_000
_MAX_VALUE = 1e5
_MAX_TIME_S = 1e10
# No meter tells less apart; the square of a far smaller difference would be 0.
_LEAST_W = 1e-9
_MAX_LINE = 10_000
# Fewer tell too little of a mean: their 95 % interval would be more than twice as wide.
LEAST_SAMPLES = 10

Span = tuple[float, float]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PowerLog:
    """Samples in the order of their times.

    Attributes:
        name: of the file, for people.
        times: `(n,)` seconds since 1970, increasing.
        watts: `(n,)`.
        volts: `(n,)` where the meter shows these and amperes instead of watts.
        amperes: `(n,)`, likewise.
    """

    name: str
    times: Floats
    watts: Floats
    volts: Floats | None = None
    amperes: Floats | None = None

    @property
    def step_s(self) -> float:
        """The usual time between two samples."""
        return float(np.median(np.diff(self.times)))

    @property
    def resolution_w(self) -> float:
        """What the smallest difference between two values that were shown makes of the power.

        Products of volts and amperes lie far closer together than the meter tells powers apart.
        """
        if self.volts is None or self.amperes is None:
            return max(_LEAST_W, _step(self.watts))
        volts, amperes = (float(np.abs(x).max()) for x in (self.volts, self.amperes))
        return max(_LEAST_W, volts * _step(self.amperes) + amperes * _step(self.volts))

    @property
    def unchanging(self) -> str:
        """What is shown all the time, such as `2 W`; empty if something tells of the load.

        A load shows in the amperes: volts that alone change are the supply's.
        """
        for values, unit in ((self.watts, "W"), (self.amperes, "A")):
            if values is not None and not _step(values):
                return f"{values[0]:g} {unit}"
        return ""

    def inside(self, spans: Iterable[Span]) -> Floats:
        """Return the watts `(k,)` of samples that tell of nothing but the spans.

        A meter shows the mean since its sample before: what lies less than a step after a span's
        beginning tells of what came before it, too.
        """
        step = self.step_s
        return self.watts[self._any((begin + step, end) for begin, end in spans)]

    def outside(self, spans: Iterable[Span]) -> Floats:
        """Return the watts `(k,)` of samples that tell nothing of the spans."""
        step = self.step_s
        return self.watts[~self._any((begin, end + step) for begin, end in spans)]

    def overlaps(self, spans: Iterable[Span]) -> bool:
        """Return whether any span lies at least partly between the first and last sample."""
        return any(a <= self.times[-1] and b >= self.times[0] for a, b in spans)

    def _any(self, spans: Iterable[Span]) -> NDArray[np.bool_]:
        found = np.zeros(len(self.times), dtype=np.bool_)
        for begin, end in spans:
            found |= (self.times >= begin) & (self.times <= end)
        return found


def _step(values: Floats) -> float:
    """Return the smallest difference between two of the values; 0 if all are equal."""
    steps = np.diff(np.unique(values))
    return float(steps.min()) if len(steps) else 0.0


class Energy(NamedTuple):
    """What one inference takes beyond idling, in mJ, with half of its 95 % interval.

    `active_w` and `idle_w` are the mean powers; `samples` were taken while it ran.
    """

    millijoule: float
    plus_minus: float
    active_w: float
    idle_w: float
    samples: int


def read_power(path: Path) -> PowerLog:
    """Read a meter's log from anywhere.

    Raises:
        DataError: it is missing, over 64 MiB, lacks a column, goes back in time, or a value is no
            number in range.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        with path.open(newline="", encoding="utf-8-sig") as file:
            samples = _samples(csv.reader(_lines(file)))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{path} is no power meter's log: {error}", expected=f"a CSV with the columns {COLUMNS}"
        ) from error
    return PowerLog(path.name, *np.array(samples).T)


def _lines(file: Iterable[str]) -> Iterator[str]:
    for line in file:
        if len(line) > _MAX_LINE:
            raise ValueError(f"a line of more than {_MAX_LINE} letters")
        yield line


def _samples(rows: Iterable[Sequence[str]]) -> list[tuple[float, ...]]:
    lines = iter(rows)
    head = [name.strip().lower() for name in next(lines, [])]
    wanted = {name: head.index(name) for name in ("time", "watts", "volts", "amperes")
              if name in head}  # fmt: skip
    if "time" not in wanted or not ("watts" in wanted or {"volts", "amperes"} <= set(wanted)):
        raise ValueError("it lacks a column")
    found: list[tuple[float, ...]] = []
    for number, row in enumerate(lines, 2):
        if not row:
            continue
        if len(found) >= _MAX_SAMPLES:
            raise ValueError(f"more than {_MAX_SAMPLES} samples")
        try:
            sample = _sample({name: row[place] for name, place in wanted.items()})
        except (ValueError, IndexError):
            raise ValueError(f"line {number} holds no time and power") from None
        if found and sample[0] <= found[-1][0]:
            raise ValueError(f"line {number} is not later than the one before")
        found.append(sample)
    if len(found) < 2:
        raise ValueError("fewer than 2 samples")
    return found


def _sample(cells: Mapping[str, str]) -> tuple[float, ...]:
    """Return the seconds and watts, and where there is no column of watts the volts and amperes."""
    seconds = _seconds(cells["time"].strip())
    if not 0 <= seconds <= _MAX_TIME_S:
        raise ValueError("no time in range")
    columns = ("watts",) if "watts" in cells else ("volts", "amperes")
    shown = [_number(cells[name]) for name in columns]
    watts, factors = math.prod(shown), shown if len(shown) > 1 else []
    return seconds, watts if abs(watts) >= _LEAST_W else 0.0, *factors


def _seconds(cell: str) -> float:
    try:
        return _number(cell, _MAX_TIME_S)
    except ValueError:
        found = datetime.fromisoformat(cell)
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


def _number(cell: str, most: float = _MAX_VALUE) -> float:
    value = float(cell)
    if not -most <= value <= most:
        raise ValueError("not in range")
    return value


def energy(log: PowerLog, timed: Sequence[Timed], busy: Sequence[Span]) -> Energy | str:
    """Return what one inference takes, or in a few words why that cannot be told.

    The energy is (mean power while timed - mean power while idle) * time / inferences. Its
    interval is Welch's, from the scatter of the samples; the meter's own accuracy and a difference
    between the two clocks come on top.

    Args:
        log: the meter's.
        timed: when the processes of one row were timed.
        busy: all times at which the device did not idle.
    """
    spans = [(one.begin_s, one.end_s) for one in timed]
    if not log.overlaps(spans):
        return (
            f"the meter's samples ({_shown(log.times[0])} to {_shown(log.times[-1])}) do not "
            f"overlap with the timings ({_shown(spans[0][0])} to {_shown(spans[-1][1])}): compare "
            "the two clocks"
        )
    seconds = sum(end - begin for begin, end in spans)
    active = log.inside(spans)
    if len(active) < LEAST_SAMPLES:
        return (
            f"only {len(active)} samples, one each {log.step_s:.3g} s, lie wholly in the "
            f"{seconds:.3g} s of timing, {LEAST_SAMPLES} are needed: benchmark with more --seconds"
        )
    idle = log.outside(busy)
    if len(idle) < LEAST_SAMPLES:
        return (
            f"only {len(idle)} samples are from before or after the benchmark, {LEAST_SAMPLES} are "
            "needed for the idle power: let the meter record longer"
        )
    if log.unchanging:
        return f"the meter shows {log.unchanging} all the time"
    each = 1000 * seconds / sum(one.invokes for one in timed)
    more, plus_minus = _difference(active, idle, log.resolution_w)
    powers = float(active.mean()), float(idle.mean())
    return Energy(each * more, each * plus_minus, *powers, len(active))


def _difference(a: Floats, b: Floats, resolution: float) -> tuple[float, float]:
    """Return the difference of two means and half of its 95 % interval (Welch 1947).

    What a meter rounds away does not scatter: it adds the variance of a uniform error to each mean.
    """
    u, v = (float(x.var(ddof=1)) / len(x) + resolution**2 / 12 for x in (a, b))
    freedom = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    return float(a.mean() - b.mean()), student_t(freedom) * math.sqrt(u + v)


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
