"""A benchmark's result, as read from the JSON that the runner or another driver wrote.

It may come from any device, so it is checked field by field before anything else reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.fields import MAX_US, count, flag, number, text
from bloodedge.benchmarks.machine import Noise, Peaks, read_noise, read_peaks, read_work
from bloodedge.benchmarks.model_work import Work
from bloodedge.benchmarks.processes import Timed, read_repeats, read_timed, read_xnnpack
from bloodedge.benchmarks.schema import check_schema
from bloodedge.errors import DataError
from bloodedge.files import read_json

SCHEMA = "bloodedge-benchmark/1"
# How a result was measured; figures of two protocols are not compared with each other.
PROTOCOLS = ("runner", "browser", "android")
_MAX_BYTES = 1 << 33
_MAX_THREADS = 1 << 12
_MAX_ROWS = 1000


@dataclass(frozen=True)
class BenchmarkRow:
    """One model at one thread count, over all its processes.

    A figure that the protocol cannot give, such as memory in a browser, is none.

    Attributes:
        model: its name, unique in the result.
        bytes: the file's size.
        gzip_bytes: the file's size gzipped at level 9.
        threads: the count that was used; never 0.
        median_us: the median of the processes' medians, in microseconds, of invoke() alone.
        p90_us: over the durations of all processes, as are `p99_us` and `min_us`.
        p99_us: see `p90_us`.
        min_us: see `p90_us`.
        load_ms: making the interpreter and allocating its tensors, in milliseconds.
        first_ms: the first inference, in milliseconds.
        peak_rss_kib: what the process grew by at its peak from before loading, in KiB.
        accuracy: in 0..1 on the sample; none where there was no sample.
        images: how many images the accuracy counts; 0 where there was no sample.
        spread: (max - min) / median over the processes' medians.
        drift: whether the spread is too large to trust the median (over 10 %).
        error: why it could not be measured; the measured fields are then none.
        delegate: what ran it, such as `webgpu`; empty where the protocol leaves no choice.
        note: what was done to fit the images to the model, or why there is no accuracy.
        work: what one inference takes; none where nobody knew.
        timed: when its processes were timed; empty where that was not recorded.
        xnnpack: whether the runtime said that it uses XNNPACK; none where nobody looked.
        predictions: the digest of the predicted classes; empty where that was not recorded.
        repeats: how many processes the figures are over; 0 where that was not recorded.
    """

    model: str
    bytes: int
    gzip_bytes: int
    threads: int
    median_us: float | None
    p90_us: float | None
    p99_us: float | None
    min_us: float | None
    load_ms: float | None
    first_ms: float | None
    peak_rss_kib: int | None
    accuracy: float | None
    images: int
    spread: float | None
    drift: bool
    error: str | None
    delegate: str = ""
    note: str = ""
    work: Work | None = None
    timed: tuple[Timed, ...] = ()
    xnnpack: bool | None = None
    predictions: str = ""
    repeats: int = 0


@dataclass(frozen=True)
class BenchmarkResult:
    """What one benchmark run found.

    Attributes:
        path: the JSON it was read from.
        complete: False when it was interrupted; the rows are then those that were finished.
        runtime: the runtime and its version, such as `ai_edge_litert 2.3.0`.
        hardware: the processor's or board's name and its architecture.
        environment: everything the runner recorded about the machine, before and after; only
            its being a JSON object was checked.
        rows: in the runner's order.
        protocol: one of `PROTOCOLS`.
        emulated: whether the device was an emulator, whose latencies mean nothing.
        peaks: what the machine can do at most, by thread count; empty where nobody measured it.
        noise: whether it was quiet enough to conclude; none where nobody looked.
    """

    path: Path
    complete: bool
    runtime: str
    hardware: str
    environment: Mapping[str, Any]
    rows: tuple[BenchmarkRow, ...]
    protocol: str = "runner"
    emulated: bool = False
    peaks: tuple[Peaks, ...] = ()
    noise: Noise | None = None


def load_result(path: Path) -> BenchmarkResult:
    """Read a runner's JSON from anywhere, checking every field that is used.

    Raises:
        DataError: it is missing, over 16 MiB, of another or a newer schema, or a field is absent,
            of the wrong type, or out of range.
    """
    value = read_json(path)
    check_schema(path, value.get("schema"), SCHEMA)
    try:
        environment, rows = value.get("environment"), value.get("rows")
        if not isinstance(environment, dict) or not isinstance(rows, list):
            raise ValueError("expected an object `environment` and a list `rows`")
        if len(rows) > _MAX_ROWS:
            raise ValueError(f"`rows` has more than {_MAX_ROWS} items")
        protocol = value.get("protocol", PROTOCOLS[0])
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
        measured = tuple(_row(row, protocol) for row in rows)
        if len({(row.model, row.threads, row.delegate) for row in measured}) < len(measured):
            raise ValueError("a model has two rows with the same thread count and delegate")
        version = text(environment, "runtime_version")
        machine = text(environment, "machine")
        return BenchmarkResult(
            path=path,
            complete=flag(value, "complete"),
            runtime=f"{text(environment, 'runtime')} {version}",
            hardware=f"{text(environment, 'cpu_model')} ({machine})",
            environment=environment,
            rows=measured,
            protocol=protocol,
            emulated="emulated" in value and flag(value, "emulated"),
            peaks=read_peaks(value.get("peaks")),
            noise=read_noise(value.get("noise")),
        )
    except ValueError as error:
        raise DataError(f"{path} is no benchmark result: {error}") from error


def _row(row: object, protocol: str) -> BenchmarkRow:
    if not isinstance(row, dict):
        raise ValueError("a row is not an object")
    failed = row.get("error") is not None
    scored = not failed and row.get("accuracy") is not None

    def known(key: str) -> bool:
        # Only the runner measures everything: others lack memory, or percentiles.
        return not failed and (protocol == PROTOCOLS[0] or row.get(key) is not None)

    def measured(key: str, most: float = MAX_US) -> float | None:
        return number(row, key, most=most) if known(key) else None

    return BenchmarkRow(
        model=text(row, "model"),
        bytes=count(row, "bytes", most=_MAX_BYTES),
        gzip_bytes=count(row, "gzip_bytes", most=_MAX_BYTES),
        threads=count(row, "threads", least=1, most=_MAX_THREADS),
        median_us=measured("median_us"),
        p90_us=measured("p90_us"),
        p99_us=measured("p99_us"),
        min_us=measured("min_us"),
        load_ms=measured("load_ms", MAX_US / 1000),
        first_ms=measured("first_ms", MAX_US / 1000),
        peak_rss_kib=count(row, "peak_rss_kib") if known("peak_rss_kib") else None,
        accuracy=number(row, "accuracy", most=1.0) if scored else None,
        images=count(row, "images", least=1) if scored else 0,
        spread=measured("spread"),
        drift=not failed and flag(row, "drift"),
        error=text(row, "error") if failed else None,
        delegate="" if row.get("delegate", "") == "" else text(row, "delegate"),
        note="" if row.get("note", "") == "" else text(row, "note"),
        work=read_work(row.get("work")),
        timed=() if failed else read_timed(row),
        xnnpack=None if failed else read_xnnpack(row),
        predictions=text(row, "predictions_sha256")
        if scored and row.get("predictions_sha256") is not None
        else "",
        repeats=0 if failed else read_repeats(row),
    )
