"""Gather runs and benchmark results into the sections of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bloodedge.benchmarks.report.data import (
    SPLIT_ORDER,
    Curve,
    Latency,
    Origin,
    ReportData,
    Row,
    Scores,
    Section,
)
from bloodedge.benchmarks.report.gates import gates
from bloodedge.benchmarks.report.origin import result_origin, run_origin
from bloodedge.benchmarks.report.read import (
    DataEntry,
    entry,
    read_curve,
    read_data,
    read_evaluated,
    read_models,
    read_scores,
    text,
)
from bloodedge.benchmarks.report.results import newest, read_result
from bloodedge.benchmarks.stage import RESULT_FILE
from bloodedge.errors import BloodedgeError, DataError
from bloodedge.files import read_json
from bloodedge.runs import Run

HISTORY_FILE = "history.csv"
# A model's own run names it best, so it comes before those that only use the file.
_ORDER = {"export": 1, "evaluate": 2, "benchmark": 3}
# The section of models that are known only from what a device says of them.
_ELSEWHERE = DataEntry("Measured on devices", False, ())


@dataclass
class _Found:
    """What has been gathered so far, by digest of the model file and fingerprint of the data."""

    files: dict[str, Row] = field(default_factory=dict)
    data: dict[str, DataEntry] = field(default_factory=dict)
    homes: dict[str, dict[str, None]] = field(default_factory=dict)
    scores: dict[tuple[str, str], dict[str, Scores]] = field(default_factory=dict)
    latencies: dict[str, dict[str, list[Latency]]] = field(default_factory=dict)
    measured: dict[str, tuple[str, Row]] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    origins: dict[str, list[Origin]] = field(default_factory=dict)
    sources: Mapping[Path, str] = field(default_factory=dict)
    gates: Mapping[str, bool] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)


def collect(
    runs: Sequence[Run], results: Sequence[Path] = (), others: Sequence[Run] = ()
) -> ReportData:
    """Return the sections, one for each data set; of two figures for one thing the newer counts.

    Args:
        runs: finished runs of any kind.
        results: JSON files that a device's runner wrote, outside any run.
        others: runs that are asked about a file's gate alone.
    """
    found = _Found(gates=gates([*others, *runs]))
    found.sources = _sources([*((run.path, run.name) for run in runs if _is_benchmark(run)),
                              *((path, path.name) for path in results)])  # fmt: skip
    for run in sorted(runs, key=_order):
        _try(found, run.path.name, partial(_add_run, found, run))
    for path in results:
        source = found.sources[path]
        _try(found, source, partial(_add_result, found, path, source))
    _add_measured(found)
    sections = tuple(_section(found, fingerprint) for fingerprint in found.homes)
    _tell_of_superseded(found, sections)
    _tell_of_other_images(found)
    origins = tuple(found.origins.get("", ()))
    return ReportData(sections, origins, tuple(found.left_out), tuple(found.bad))


def _is_benchmark(run: Run) -> bool:
    return bool(run.manifest["kind"] == "benchmark")


def _sources(named: Sequence[tuple[Path, str]]) -> dict[Path, str]:
    """Return what to call each result: all that is of one name is taken for one measurement.

    Copies from several devices often have one name. These get their folder's in front, or else
    are called by their whole path.
    """
    names = {path: text(name) for path, name in named}
    for longer in (lambda path: "/".join(path.parts[-2:]), str):
        count = Counter(names.values())
        for path in [path for path, name in names.items() if count[name] > 1]:
            names[path] = text(longer(path.absolute()))
    return names


def _try(found: _Found, name: str, add: Callable[[], None]) -> None:
    """Add something; a file that is damaged costs what is in it, and not the others."""
    try:
        add()
    except (BloodedgeError, RecursionError) as error:
        found.left_out.append((text(name), text(error)))
        found.bad.append(text(name))


def _order(run: Run) -> tuple[int, str]:
    return _ORDER.get(str(run.manifest["kind"]), 0), str(run.manifest.get("created", ""))


def _add_run(found: _Found, run: Run) -> None:
    """Add a run; one that raises has added nothing but the description of its data."""
    manifest = run.manifest
    if _is_benchmark(run):
        _add_result(found, run.path / RESULT_FILE, found.sources[run.path], manifest)
        return
    fingerprint, data = read_data(manifest)
    names = _add_data(found, fingerprint, data).class_names
    rows = [read_evaluated(manifest)] if manifest["kind"] == "evaluate" else list(read_models(run))
    if not rows:
        why = f"a run of kind {text(manifest['kind'])} has no model of its own"
        found.left_out.append((text(run.name), why))
        return
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
    found.curves.setdefault(fingerprint, []).extend(_curve(found, run))


def _curve(found: _Found, run: Run) -> list[Curve]:
    """Return a run's learning curve if it has one; a damaged one costs nothing else of the run."""
    path = run.path / HISTORY_FILE
    try:
        return [read_curve(text(run.name), path)] if path.is_file() else []
    except DataError as error:
        found.left_out.append((text(run.path.name), f"of this only the curve: {text(error)}"))
        found.bad.append(text(run.path.name))
        return []


def _add_data(found: _Found, fingerprint: str, data: DataEntry) -> DataEntry:
    """Return the first description of a data set; it is synthetic where any of them says so."""
    first = found.data.setdefault(fingerprint, data)
    if data.synthetic:
        found.data[fingerprint] = first = first._replace(synthetic=True)
    return first


def _inherit(found: _Found, row: Row, manifest: Mapping[str, Any]) -> Row:
    """An exported model is of its parent's family; one that nothing is known of is its own."""
    sha = entry(manifest, "parents").get("parent")
    parent = found.files.get(str(sha))
    family = row.family or (parent.family if parent else "") or row.model
    return replace(row, family=family, parent=text(sha or ""))


def _merge(new: Row, old: Row | None) -> Row:
    """Keep the names of the run that holds the file: an evaluation may only know its path."""
    if old is None:
        return new
    return replace(old, gzip_bytes=new.gzip_bytes if old.gzip_bytes is None else old.gzip_bytes)


def _add_result(
    found: _Found, path: Path, source: str, manifest: Mapping[str, Any] | None = None
) -> None:
    """Add what a benchmark has measured, by the digest of each model file."""
    fingerprint, data = _images_of(manifest or entry(read_json(path), "sample"))
    result = read_result(path, source, fingerprint)
    if data:
        _add_data(found, fingerprint, data)
    found.left_out += result.left_out
    for sha, latency, row in result.measured:
        places = found.latencies.setdefault(sha, {})
        places.setdefault(latency.column, []).append(latency)
        if not found.measured.get(sha, ("",))[0]:
            found.measured[sha] = fingerprint, row
    found.origins.setdefault("", []).append(result_origin(source, path, manifest))


def _images_of(about: Mapping[str, Any]) -> tuple[str, DataEntry | None]:
    """Return which images a benchmark classified; a result from no bundle and no run says none."""
    try:
        return read_data(about)
    except BloodedgeError:
        return "", None


def _add_measured(found: _Found) -> None:
    """Give a section to what was measured but is in no run: that of its images, or its own."""
    found.data[""] = _ELSEWHERE
    known = {sha for homes in found.homes.values() for sha in homes}
    for sha, (fingerprint, row) in sorted(found.measured.items(), key=lambda item: not item[1][0]):
        if sha not in known:
            found.files[sha] = row
            found.homes.setdefault(fingerprint, {})[sha] = None


def _section(found: _Found, fingerprint: str) -> Section:
    rows, emulated = [], []
    for sha in found.homes[fingerprint]:
        by_split = found.scores.get((fingerprint, sha), {})
        scores = next((by_split[split] for split in SPLIT_ORDER if split in by_split), None)
        base = replace(found.files[sha], scores=scores, failed=found.gates.get(sha))
        places = found.latencies.get(sha, {}).values()
        timed = [_on(newest(_about(latencies, fingerprint)), fingerprint) for latencies in places]
        real = [replace(base, latency=latency) for latency in timed if not latency.emulated]
        rows += real or [base]
        emulated += [replace(base, latency=latency) for latency in timed if latency.emulated]
    marks = _marks([*rows, *emulated])
    rows, emulated = (
        [replace(row, mark=marks.get(row.sha256, "")) for row in listed]
        for listed in (rows, emulated)
    )
    # The model with the largest file first, then its variants: from the reference to what was
    # made of it.
    largest = {row.model: max(r.bytes for r in rows if r.model == row.model) for row in rows}
    for listed in (rows, emulated):
        listed.sort(key=lambda row: (-largest[row.model], row.model, -row.bytes, row.variant))
    title, synthetic, names = found.data[fingerprint]
    curves = tuple(found.curves.get(fingerprint, ()))
    # Under no fingerprint are the devices, which have a place of their own.
    origins = tuple(found.origins.get(fingerprint, ())) if fingerprint else ()
    shared = fingerprint, title, synthetic, names, tuple(rows), curves, origins
    return Section(*shared, tuple(emulated))


def _marks(rows: Sequence[Row]) -> dict[str, str]:
    """Return what tells apart files of one model and variant, by digest: where each lies.

    Where that is unknown or the same, it is the beginning of the digest.
    """
    named: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        named.setdefault((row.model, row.variant), {})[row.sha256] = row.home
    marks: dict[str, str] = {}
    for homes in (homes for homes in named.values() if len(homes) > 1):
        count = Counter(homes.values())
        marks |= {s: home if home and count[home] == 1 else s[:8] for s, home in homes.items()}
    return marks


def _about(latencies: list[Latency], fingerprint: str) -> list[Latency]:
    """Return those that classified the section's images, or may have, if there are any."""
    return [one for one in latencies if one.data in ("", fingerprint)] or latencies


def _tell_of_superseded(found: _Found, sections: Sequence[Section]) -> None:
    """Name the results of which nothing is shown, because later ones are of the same things."""
    shown: dict[str, str] = {}
    for section in sections:
        for latency in filter(None, (row.latency for row in (*section.rows, *section.emulated))):
            shown |= {result.source: "" for result in latency.results}
            for other in latency.superseded:
                shown.setdefault(other.source, latency.source)
    for source, newer in shown.items():
        if newer:
            why = f"{newer} has later figures of the same files, device and runtime"
            found.left_out.append((source, why))


def _tell_of_other_images(found: _Found) -> None:
    """Name the results that give way to others because of the images that they classified."""
    sources: dict[str, None] = {}
    for sha, places in found.latencies.items():
        homes = [fingerprint for fingerprint, files in found.homes.items() if sha in files]
        for latencies in places.values():
            used = [one for fingerprint in homes for one in _about(latencies, fingerprint)]
            sources |= {one.source: None for one in latencies if one not in used}
    why = "classified other images than those whose figures of the same files are shown"
    found.left_out += [(source, why) for source in sources]


def _on(latency: Latency, fingerprint: str) -> Latency:
    """Take away the accuracy on a device if it is about other images than the section's."""
    if latency.data in ("", fingerprint):
        return latency
    single, many = (
        replace(row, accuracy=None, images=0) if row else None
        for row in (latency.single, latency.all_cores)
    )
    return replace(latency, single=single, all_cores=many)
