"""What a result records of each process that was measured; any of it may be absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bloodedge.benchmarks.fields import MAX_US, count, number
from bloodedge.benchmarks.runner import REPEATS_LIMIT

# The year 2286.
_MAX_EPOCH_S = 1e10
# What an inference takes in the runner's loop beside what is timed: 0.4 to 14 us on a server.
_LOOP_US = 20.0
# And a process before its first inference, or where another one had the core just then.
_START_S = 0.1


class Timed(NamedTuple):
    """When a process was timed, in seconds since 1970 by the device's clock, and how many times."""

    begin_s: float
    end_s: float
    invokes: int


def read_timed(row: Mapping[str, Any]) -> tuple[Timed, ...]:
    """Return when a row's processes were timed; empty where that was not recorded.

    A process during which the device's clock was set says nothing of when that was.

    Raises:
        ValueError: what was recorded is of the wrong type or out of range.
    """
    found = [(_timed(run), run) for run in _runs(row) if "timed_s" in run]
    return tuple(timed for timed, run in found if _ran_on(timed, run))


def read_xnnpack(row: Mapping[str, Any]) -> bool | None:
    """Return whether the runtime said in all processes that it uses XNNPACK; none if unknown.

    Raises:
        ValueError: there is no list of processes.
    """
    said = [run["xnnpack"] for run in _runs(row) if isinstance(run.get("xnnpack"), bool)]
    return all(said) if said else None


def read_repeats(row: Mapping[str, Any]) -> int:
    """Return how many processes a row's figures are over; 0 where that was not recorded.

    Raises:
        ValueError: what was recorded is of the wrong type or out of range.
    """
    if row.get("repeats") is None:
        return len(_runs(row))
    return count(row, "repeats", least=1, most=REPEATS_LIMIT)


def _runs(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    runs = row.get("runs", [])
    if not isinstance(runs, list) or len(runs) > REPEATS_LIMIT:
        raise ValueError(f"`runs` is not a list of at most {REPEATS_LIMIT} objects")
    return [run for run in runs if isinstance(run, dict)]


def _timed(run: Mapping[str, Any]) -> Timed:
    pair = run["timed_s"]
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError("`timed_s` is not a beginning and an end")
    begin, end = (number({"timed_s": second}, "timed_s", most=_MAX_EPOCH_S) for second in pair)
    return Timed(begin, end, count(run, "count", least=1))


def _ran_on(timed: Timed, run: Mapping[str, Any]) -> bool:
    """Return whether the clock shows about as many seconds as the inferences took.

    Their durations are by another clock, which nobody can set. A board without a battery for its
    clock is set from the network some time after it starts.
    """
    seconds = timed.end_s - timed.begin_s
    if seconds <= 0 or run.get("mean_us") is None:
        return seconds > 0
    alone = whole = number(run, "mean_us", most=MAX_US)
    if run.get("with_input_median_us") is not None:
        whole = max(alone, number(run, "with_input_median_us", most=MAX_US))
    least = 0.9 * timed.invokes * alone / 1e6
    most = 1.1 * timed.invokes * (whole + _LOOP_US) / 1e6 + _START_S
    return least <= seconds <= most
