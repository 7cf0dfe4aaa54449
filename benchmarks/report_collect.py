"""Gather runs and benchmark results into the sections of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.host import BenchmarkResult, BenchmarkRow, load_result
from bloodedge.benchmarks.report_data import (
    SPLIT_ORDER,
    Curve,
    Latency,
    Origin,
    ReportData,
    Row,
    Scores,
    Section,
)
from bloodedge.benchmarks.report_origin import result_origin, run_origin
from bloodedge.benchmarks.report_read import (
    DataEntry,
    digest,
    entry,
    read_curve,
    read_data,
    read_evaluated,
    read_models,
    read_scores,
    text,
)
from bloodedge.benchmarks.stage import RESULT_FILE
from bloodedge.errors import BloodedgeError, DataError
from bloodedge.files import read_json
from bloodedge.runs import Run

HISTORY_FILE = "history.csv"
# A model's own run names it best, so it comes before those that only use the file.
_ORDER = {"export": 1, "evaluate": 2, "benchmark": 3}


@dataclass
class _Found:
    """What has been gathered so far, by digest of the model file and fingerprint of the data."""

    files: dict[str, Row] = field(default_factory=dict)
    data: dict[str, DataEntry] = field(default_factory=dict)
    homes: dict[str, dict[str, None]] = field(default_factory=dict)
    scores: dict[tuple[str, str], dict[str, Scores]] = field(default_factory=dict)
    latencies: dict[str, dict[tuple[str, str], Latency]] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    origins: dict[str, list[Origin]] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def collect(runs: Sequence[Run], results: Sequence[Path] = ()) -> ReportData:
    """Return the sections, one for each data set; of two figures for one thing the newer counts.

    Args:
        runs: finished runs of any kind.
        results: JSON files that a device's runner wrote, outside any run.
    """
    found = _Found()
    for run in sorted(runs, key=_order):
        try:
            _add_run(found, run)
        except BloodedgeError as error:
            found.left_out.append((text(run.path.name), text(error)))
    for path in results:
        _add_result(found, load_result(path), path)
        found.origins.setdefault("", []).append(result_origin(path.name, path))
    known = {sha for homes in found.homes.values() for sha in homes}
    for sha in found.latencies.keys() - known:
        why = "timed, but no run given here evaluates or holds it"
        found.left_out.append((f"the model {sha[:12]}", why))
    sections = tuple(_section(found, fingerprint) for fingerprint in found.homes)
    return ReportData(sections, tuple(found.origins.get("", ())), tuple(found.left_out))


def _order(run: Run) -> tuple[int, str]:
    return _ORDER.get(str(run.manifest["kind"]), 0), str(run.manifest.get("created", ""))


def _add_run(found: _Found, run: Run) -> None:
    """Add a run; one that raises has added nothing but the description of its data."""
    manifest = run.manifest
    if manifest["kind"] == "benchmark":
        path = run.path / RESULT_FILE
        _add_result(found, load_result(path), path)
        found.origins.setdefault("", []).append(result_origin(run.name, path, manifest))
        return
    fingerprint, data = read_data(manifest)
    names = found.data.setdefault(fingerprint, data).class_names
    rows = [read_evaluated(manifest)] if manifest["kind"] == "evaluate" else list(read_models(run))
    if not rows:
        raise DataError(f"a run of kind {text(manifest['kind'])} without a model")
    metrics = entry(manifest, "metrics")
    scores = {s: read_scores(s, metrics[s], len(names)) for s in SPLIT_ORDER if s in metrics}
    for row in rows:
        old = found.files.get(row.sha256)
        found.files[row.sha256] = _merge(_inherit(found, row, manifest), old)
        found.homes.setdefault(fingerprint, {})[row.sha256] = None
        # Figures of a run with several models would not say which one they are about.
        by_split = found.scores.setdefault((fingerprint, row.sha256), {})
        by_split.update(scores if len(rows) == 1 else {})
    found.origins.setdefault(fingerprint, []).append(run_origin(run.name, manifest))
    if (run.path / HISTORY_FILE).is_file():
        curve = read_curve(text(run.name), run.path / HISTORY_FILE)
        found.curves.setdefault(fingerprint, []).append(curve)


def _inherit(found: _Found, row: Row, manifest: Mapping[str, Any]) -> Row:
    """An exported model is of its parent's family; one that nothing is known of is its own."""
    parent = found.files.get(str(entry(manifest, "parents").get("parent")))
    return replace(row, family=row.family or (parent.family if parent else "") or row.model)


def _merge(new: Row, old: Row | None) -> Row:
    """Keep the names of the run that holds the file: an evaluation may only know its path."""
    if old is None:
        return new
    return replace(old, gzip_bytes=new.gzip_bytes if old.gzip_bytes is None else old.gzip_bytes)


def _add_result(found: _Found, result: BenchmarkResult, path: Path) -> None:
    """Add the rows of a benchmark, by the digest of each model file."""
    raw = read_json(path)["rows"]
    by_file: dict[tuple[str, str], list[BenchmarkRow]] = {}
    if result.emulated:
        why = "measured in an emulator, whose latencies mean nothing"
        found.left_out.append((text(path.name), why))
        return
    for row, recorded in zip(result.rows, raw, strict=True):
        if row.error:
            why = f"{row.model} with {row.threads} threads was not measured: {row.error}"
            found.left_out.append((text(path.name), text(why)))
            continue
        by_file.setdefault((digest(recorded.get("sha256")), row.delegate), []).append(row)
    if not result.complete:
        found.left_out.append((text(path), "the benchmark was interrupted; its rows are used"))
    for (sha, delegate), rows in by_file.items():
        single = next((row for row in rows if row.threads == 1), None)
        many = max((r for r in rows if r.threads > 1), key=lambda r: r.threads, default=None)
        runtime = f"{result.runtime}, {delegate}" if delegate else result.runtime
        latency = Latency(result.hardware, runtime, single, many, result.protocol)
        found.latencies.setdefault(sha, {})[latency.place, runtime] = latency


def _section(found: _Found, fingerprint: str) -> Section:
    rows = []
    for sha in found.homes[fingerprint]:
        by_split = found.scores.get((fingerprint, sha), {})
        scores = next((by_split[split] for split in SPLIT_ORDER if split in by_split), None)
        base = replace(found.files[sha], scores=scores)
        timed = found.latencies.get(sha, {}).values()
        rows += [replace(base, latency=latency) for latency in timed] or [base]
    # The model with the largest file first, then its variants: from the reference to what was
    # made of it.
    largest = {row.model: max(r.bytes for r in rows if r.model == row.model) for row in rows}
    rows.sort(key=lambda row: (-largest[row.model], row.model, -row.bytes, row.variant))
    title, synthetic, names = found.data[fingerprint]
    curves = tuple(found.curves.get(fingerprint, ()))
    origins = tuple(found.origins.get(fingerprint, ()))
    return Section(fingerprint, title, synthetic, names, tuple(rows), curves, origins)
