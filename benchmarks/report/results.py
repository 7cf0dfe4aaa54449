"""Benchmark results for the report: one latency for each model file, device and runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bloodedge.benchmarks.report.data import Latency, Row
from bloodedge.benchmarks.report.read import digest, entry, text
from bloodedge.benchmarks.result import BenchmarkResult, BenchmarkRow, load_result
from bloodedge.benchmarks.runner import INT8_DOT_FLAGS
from bloodedge.files import read_json
from bloodedge.references import TFLITE_SUFFIX
from bloodedge.variants import Variant

# benchmark_model's own least; what is timed for less is a rough look.
_LEAST_SECONDS = 1.0
_MAX_FLAGS = 100


class Measured(NamedTuple):
    """One model file in one place, as its device tells it."""

    sha256: str
    latency: Latency
    row: Row


class Result(NamedTuple):
    """What a result file holds, and what of it is left out with the reason."""

    measured: tuple[Measured, ...]
    left_out: tuple[tuple[str, str], ...]


def read_result(path: Path, source: str, data: str = "") -> Result:
    """Read a result.

    Args:
        path: the JSON.
        source: what to call it.
        data: the fingerprint of the images, if it is known.

    Raises:
        DataError: it is damaged, or of a newer schema.
    """
    result = load_result(path)
    raw = read_json(path)
    left_out = []
    by_file: dict[tuple[str, str], list[BenchmarkRow]] = {}
    for row, recorded in zip(result.rows, raw["rows"], strict=True):
        if row.error:
            why = f"{row.model} with {row.threads} threads was not measured: {row.error}"
            left_out.append((source, text(why)))
            continue
        by_file.setdefault((digest(recorded.get("sha256")), row.delegate), []).append(row)
    if result.emulated:
        why = "measured in an emulator, whose latencies mean nothing: only its answers are shown"
        left_out.append((source, why))
    if not result.complete:
        left_out.append((source, "what it had not measured yet when it was interrupted"))
    base = _base(result, raw, source, data)
    return Result(tuple(_measured(by_file, base)), tuple(left_out))


def _base(result: BenchmarkResult, raw: Mapping[str, Any], source: str, data: str) -> Latency:
    """Return what all latencies of a result share."""
    environment = result.environment
    config = entry(raw, "config")
    seconds = config.get("seconds")
    short = isinstance(seconds, int | float) and seconds < _LEAST_SECONDS
    return Latency(
        device=result.hardware,
        runtime=result.runtime,
        single=None,
        all_cores=None,
        protocol=result.protocol,
        quick=config.get("quick") is True or short,
        emulated=result.emulated,
        when=_utc(entry(environment, "before").get("utc") or environment.get("utc")),
        until=_utc(entry(environment, "after").get("utc")),
        source=source,
        data=data,
        int8_dot=_int8_dot(environment.get("cpu_flags")),
        peaks=result.peaks,
        noise=result.noise,
    )


def _measured(
    by_file: Mapping[tuple[str, str], list[BenchmarkRow]], base: Latency
) -> Iterator[Measured]:
    for (sha, delegate), rows in by_file.items():
        single = next((row for row in rows if row.threads == 1), None)
        many = max((r for r in rows if r.threads > 1), key=lambda r: r.threads, default=None)
        if base.emulated:
            single, many = (_answers(row) if row else None for row in (single, many))
        runtime = f"{base.runtime}, {delegate}" if delegate else base.runtime
        latency = replace(base, runtime=runtime, single=single, all_cores=many, delegate=delegate)
        yield Measured(sha, latency, _described(sha, rows[0]))


def _answers(row: BenchmarkRow) -> BenchmarkRow:
    """Return an emulator's row without its times, so that nothing can show them."""
    return replace(
        row,
        median_us=None,
        p90_us=None,
        p99_us=None,
        min_us=None,
        load_ms=None,
        first_ms=None,
        spread=None,
        drift=False,
        timed=(),
    )


def _described(sha: str, row: BenchmarkRow) -> Row:
    """Return what a device says of a file that no run here holds."""
    folder, _, name = row.model.rpartition("/")
    stem = name.removesuffix(TFLITE_SUFFIX)
    variant = Variant.parse(stem).format
    model = stem.removesuffix(f"-{variant}") if variant else stem
    home = folder.rpartition("/")[2]
    return Row(model, variant or "tflite", model, name, sha, row.bytes, row.gzip_bytes, home=home)


def newest(found: Sequence[Latency]) -> Latency:
    """Return one latency of several of the same thing: the later counts.

    Where a time is unknown, that is the one which was read later. What only an earlier one has
    measured, such as all cores, is kept.

    Args:
        found: at least one, in the order in which they were read.
    """
    dated = all(latency.when for latency in found)
    order = sorted(found, key=lambda latency: latency.when) if dated else list(found)
    single = next((one for one in reversed(order) if one.single), None)
    many = next((one for one in reversed(order) if one.all_cores), None)
    base = single or many or order[-1]
    others = tuple(one for one in order if one is not base and one is not many)
    if many is None or many is base:
        return replace(base, all_cores=many.all_cores if many else None, superseded=others)
    # What the machine can do is compared with what was measured in the same run alone.
    peaks = [*(p for p in base.peaks if p.threads == 1), *(p for p in many.peaks if p.threads > 1)]
    used = replace(base, all_cores=many.all_cores, peaks=tuple(peaks))
    return replace(used, superseded=others, merged=(base, many))


def _utc(value: object) -> str:
    """Return a recorded time in one form, so that two can be compared; empty if it is none."""
    try:
        found = datetime.fromisoformat(str(value)[:40])
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        return ""


def _int8_dot(flags: object) -> bool | None:
    if not isinstance(flags, list) or len(flags) > _MAX_FLAGS:
        return None
    return any(flag in INT8_DOT_FLAGS for flag in flags if isinstance(flag, str))
