"""The table device x model: every model file, in every place where it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from bloodedge.benchmarks.report.data import Latency, Row, Section
from bloodedge.benchmarks.report.part import Line, Part
from bloodedge.benchmarks.report.text import micros, percent
from bloodedge.benchmarks.result import BenchmarkRow
from bloodedge.text import kilobytes

_NOTE = (
    "Median of one inference with one thread (or with as many as stand in brackets) in µs, and the "
    "accuracy in % on the images that the device classified. Compare medians within a column only: "
    "columns are other devices, runtimes or ways of measuring. † marks a median whose processes "
    "differ by more than 10 %."
)
_EMULATED = "What an emulator takes means nothing: of it only the accuracy is shown."
_UNNAMED = "No result says which images these were."


def device_part(section: Section) -> Part | None:
    """Return the table, or nothing where nothing was measured."""
    rows = [row for row in (*section.rows, *section.emulated) if row.latency]
    columns = list(dict.fromkeys(row.latency.column for row in rows if row.latency))
    if not columns:
        return None
    cells = {(row.sha256, row.latency.column): row.latency for row in rows if row.latency}
    models = list({row.sha256: row for row in rows}.values())
    head = ("model", "KB", *columns)
    table = [(row.label, kilobytes(row.bytes), *_line(row, columns, cells)) for row in models]
    notes = [_NOTE]
    notes += [_EMULATED] if section.emulated else []
    notes += [_images(rows)] if section.fingerprint else [f"{_images(rows)} {_UNNAMED}"]
    return Part(
        "devices",
        "Device by model",
        (head, *table),
        (*notes, *_remarks(rows), *_noisy(rows), *_disagreements(models, rows)),
        raw=_raw(models, columns, cells),
        leading=2,
    )


def _line(row: Row, columns: Sequence[str], cells: dict[tuple[str, str], Latency]) -> Line:
    return tuple(_cell(cells.get((row.sha256, column))) for column in columns)


def _cell(latency: Latency | None) -> str:
    found = latency.figures if latency else None
    if latency is None or found is None:
        return ""
    words = []
    if found.median_us is not None:
        threads = f" ({found.threads})" if found.threads > 1 else ""
        words.append(f"{micros(found.median_us)}{'†' if found.drift else ''}{threads}")
    scored = _scored(latency)
    words += [f"{percent(scored.accuracy)} %"] if scored and scored.accuracy is not None else []
    return " · ".join(words)


def _scored(latency: Latency) -> BenchmarkRow | None:
    """Return the row that has an accuracy: the runner classifies once for each thread count."""
    rows = (latency.single, latency.all_cores)
    return next((row for row in rows if row and row.accuracy is not None), None)


def _images(rows: Sequence[Row]) -> str:
    """Return how many images the accuracies are about: places with other numbers differ in them."""
    found: dict[int, dict[str, None]] = {}
    for row in rows:
        scored = _scored(row.latency) if row.latency else None
        if row.latency and scored:
            found.setdefault(scored.images, {})[row.latency.column] = None
    if not found:
        return "No device classified images."
    if len(found) == 1:
        return f"Each device classified {next(iter(found)):,} images."
    each = "; ".join(f"{n:,} images: {', '.join(columns)}" for n, columns in found.items())
    return f"Accuracies over other images differ for that reason alone: {each}."


def _remarks(rows: Sequence[Row]) -> list[str]:
    """Return what the runner did to fit the images to a model, or why there is no accuracy."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        timed = (row.latency.single, row.latency.all_cores) if row.latency else ()
        for measured in timed:
            if measured and measured.note:
                found.setdefault(measured.note, {})[row.label] = None
    return [f"{', '.join(labels)}: {note}." for note, labels in found.items()]


def _noisy(rows: Sequence[Row]) -> list[str]:
    """Name the places that their own runner called too noisy, with its reasons."""
    found: dict[str, dict[str, None]] = {}
    for result in (one for row in rows if row.latency for one in row.latency.results):
        if result.noise and result.noise.verdict == "noisy" and not result.emulated:
            found.setdefault(result.place, {}).update(dict.fromkeys(result.noise.reasons))
    return [
        f"Too noisy to conclude, says the runner on {place}: {'; '.join(reasons)}."
        for place, reasons in found.items()
    ]


def _disagreements(models: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """Name the files that were answered differently by devices that saw as many images."""
    notes = []
    for model in models:
        seen: dict[int, dict[str, dict[str, None]]] = {}
        for row in (row for row in rows if row.sha256 == model.sha256):
            scored = _scored(row.latency) if row.latency else None
            if row.latency and scored and scored.predictions:
                answers = seen.setdefault(scored.images, {}).setdefault(scored.predictions, {})
                answers[row.latency.column] = None
        for images, by_digest in seen.items():
            if len(by_digest) > 1:
                sides = " / ".join(", ".join(columns) for columns in by_digest.values())
                same = f"if these saw the same {images:,} images, they disagree"
                notes.append(f"{model.label}: {same}: {sides}.")
    return notes


def _raw(
    models: Sequence[Row], columns: Sequence[str], cells: dict[tuple[str, str], Latency]
) -> tuple[tuple[object, ...], ...]:
    kinds = ("threads", "median us", "accuracy", "images")
    head = ["model", "variant", "sha256", "bytes"]
    head += [f"{column}: {kind}" for column in columns for kind in kinds]
    lines: list[tuple[object, ...]] = [tuple(head)]
    for row in models:
        values: list[object] = [row.name, row.variant, row.sha256, row.bytes]
        for column in columns:
            latency = cells.get((row.sha256, column))
            found = latency.figures if latency else None
            scored = _scored(latency) if latency else None
            values += [found.threads, found.median_us] if found else [None, None]
            values += [scored.accuracy, scored.images] if scored else [None, None]
        lines.append(tuple(values))
    return tuple(lines)
