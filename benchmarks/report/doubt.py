"""Whether timings allow a conclusion, as which is faster: asked wherever the report draws one."""

from __future__ import annotations

from typing import NamedTuple

from bloodedge.benchmarks.report.data import Latency
from bloodedge.benchmarks.result import BenchmarkRow

# As the runner's own verdict of noise: fewer cannot tell a difference from chance.
LEAST_PROCESSES = 3
APART = "from different runs"


class Timing(NamedTuple):
    """The figures of one file with some number of threads, and the result that they are from."""

    result: Latency
    row: BenchmarkRow


def single(latency: Latency) -> Timing | None:
    """Return what one thread took; none where that was not measured."""
    return _timing(latency.results[0], latency.single)


def all_cores(latency: Latency) -> Timing | None:
    """Return what the most threads took; none where that was not measured."""
    return _timing(latency.results[-1], latency.all_cores)


def _timing(result: Latency, row: BenchmarkRow | None) -> Timing | None:
    return Timing(result, row) if row and row.median_us else None


def doubt(*timings: Timing) -> str:
    """Return why nothing can be concluded from timings; empty where something can.

    Args:
        timings: those to compare, or one alone.
    """
    if any(result.quick for result, _ in timings):
        return "a quick look"
    if any(row.repeats < LEAST_PROCESSES for _, row in timings):
        return "too few processes"
    if any(result.noise and result.noise.verdict == "noisy" for result, _ in timings):
        return "too noisy to conclude"
    # Between two runs a machine may have cooled, been updated, or been busy with something else.
    return APART if len({result.source for result, _ in timings}) > 1 else ""
