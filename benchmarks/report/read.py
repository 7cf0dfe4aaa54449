"""Reading run manifests and histories, which may come from anywhere: each field is checked."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from bloodedge.benchmarks import fields
from bloodedge.benchmarks.report.data import Curve, Row, Scores
from bloodedge.errors import DataError
from bloodedge.files import gzip_size, sha256_of
from bloodedge.references import KERAS_SUFFIX, TFLITE_SUFFIX, WEIGHTS_SUFFIX
from bloodedge.runs import Run
from bloodedge.text import one_line

_VARIANT = {KERAS_SUFFIX: "keras", TFLITE_SUFFIX: "tflite", WEIGHTS_SUFFIX: "float16 weights"}
_MAX_TEXT = 2000
_MAX_CLASSES = 1000
_MAX_EPOCHS = 100_000
# No training in float32 reaches it; a plot of more has an axis without end.
_MAX_VALUE = 1e38


T = TypeVar("T")


class DataEntry(NamedTuple):
    """What a manifest says of its data."""

    title: str
    synthetic: bool
    class_names: tuple[str, ...]


def text(value: object) -> str:
    """Return one printable line of an untrusted value."""
    return one_line(value, _MAX_TEXT)


def entry(value: object, key: str) -> dict[str, Any]:
    """Return the object under `key`, empty where there is none."""
    inside = value.get(key) if isinstance(value, dict) else None
    return inside if isinstance(inside, dict) else {}


def read_scores(split: str, value: object, classes: int) -> Scores:
    """Return the figures in a manifest's `metrics[split]`.

    Raises:
        DataError: a figure is missing, of the wrong type, or out of range.
    """
    if not isinstance(value, dict):
        raise DataError(f"the metrics of {split} are no object")
    confusion = tuple(_counts(row, classes) for row in _items(value, "confusion", classes))
    interval = tuple(number(x, "accuracy_95ci") for x in _items(value, "accuracy_95ci", 2))
    precision, recall, f1 = (_shares(value, key, classes) for key in ("precision", "recall", "f1"))
    return Scores(
        split=split,
        images=sum(map(sum, confusion)),
        accuracy=number(value.get("accuracy"), "accuracy"),
        interval=(interval[0], interval[1]),
        auc=None if value.get("auc") is None else number(value["auc"], "auc"),
        macro_f1=number(value.get("macro_f1"), "macro_f1"),
        ece=number(value.get("ece"), "ece"),
        precision=precision,
        recall=recall,
        f1=f1,
        confusion=confusion,
    )


def _shares(value: Mapping[str, Any], key: str, classes: int) -> tuple[float, ...]:
    return tuple(number(share, key) for share in _items(value, key, classes))


def number(value: object, name: str, most: float = 1.0) -> float:
    """Return a finite number in 0..`most`.

    Raises:
        DataError: it is none.
    """
    # An interval's end or an error of calibration may be as small as rounding leaves it.
    return _checked(lambda: fields.number({name: value}, name, most=most, least=0.0))


def count(value: object, name: str) -> int:
    """Return a whole number of 0 or more.

    Raises:
        DataError: it is none.
    """
    return _checked(lambda: fields.count({name: value}, name))


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise DataError(str(error)) from None


def _items(value: Mapping[str, Any], key: str, length: int) -> Sequence[Any]:
    items = value.get(key)
    if not isinstance(items, list) or len(items) != length or length > _MAX_CLASSES:
        raise DataError(f"`{key}` is not a list of {length} items")
    return items


def _counts(row: object, classes: int) -> tuple[int, ...]:
    if not isinstance(row, list) or len(row) != classes:
        raise DataError(f"`confusion` has a row that is not {classes} counts")
    return tuple(count(x, "confusion") for x in row)


def read_curve(run: str, path: Path) -> Curve:
    """Read a run's `history.csv`.

    Raises:
        DataError: it is damaged, or has no epochs.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            columns = _columns(csv.DictReader(file))
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is no training history: {error}") from error
    return Curve(run, columns)


def _columns(rows: Iterable[Mapping[str, str]]) -> dict[str, tuple[float, ...]]:
    values: dict[str, list[float]] = {}
    for index, row in enumerate(rows):
        if index >= _MAX_EPOCHS:
            raise ValueError(f"more than {_MAX_EPOCHS} epochs")
        for name, cell in row.items():
            values.setdefault(name, []).append(float(cell))
    if not values or not all(abs(x) <= _MAX_VALUE for column in values.values() for x in column):
        raise ValueError(f"no epochs, or a value that is not in -{_MAX_VALUE:g}..{_MAX_VALUE:g}")
    return {name: tuple(column) for name, column in values.items()}


def read_data(manifest: Mapping[str, Any]) -> tuple[str, DataEntry]:
    """Return the data's fingerprint and description.

    Raises:
        DataError: the manifest lacks the fingerprint or the class names.
    """
    data = entry(manifest, "data")
    names = data.get("class_names")
    if not isinstance(names, list) or not 2 <= len(names) <= _MAX_CLASSES:
        raise DataError("the manifest names no classes")
    fingerprint = data.get("fingerprint")
    if not isinstance(fingerprint, str) or not fingerprint:
        raise DataError("the manifest has no data fingerprint")
    synthetic = data.get("synthetic") is True or data.get("origin") == "synthetic"
    title = text(data.get("title", "")) or "untitled data"
    return text(fingerprint), DataEntry(title, synthetic, tuple(text(name) for name in names))


def read_models(run: Run) -> Iterator[Row]:
    """Yield a row for each model file that a run holds."""
    manifest = run.manifest
    variants = entry(manifest["metrics"], "variants")
    by_file = {
        text(inside.get("file")): (text(name), inside)
        for name, inside in variants.items()
        if isinstance(inside, dict)
    }
    for name, file in entry(manifest, "files").items():
        suffix = next((suffix for suffix in _VARIANT if name.endswith(suffix)), None)
        if suffix is None or "/" in name or not isinstance(file, dict):
            continue
        variant, inside = by_file.get(text(name), ("", {}))
        model = text(name).removesuffix(suffix) if manifest["kind"] == "export" else text(run.name)
        row = Row(
            model=model.removesuffix(f"-{variant}"),
            variant=variant or _VARIANT[suffix],
            family=_family(manifest),
            file=text(name),
            sha256=digest(file.get("sha256")),
            bytes=count(file.get("bytes"), "bytes"),
            gzip_bytes=None,
            # A trained model has its run's name: only the folder of runs can say more.
            home=text(run.name if manifest["kind"] == "export" else run.path.parent.name),
        )
        yield replace(row, gzip_bytes=_gzip(inside.get("gzip_bytes"), run.path / name, row))


def _gzip(recorded: object, path: Path, row: Row) -> int | None:
    """Return the recorded size, else that of the file if it still is the one in the manifest."""
    if recorded is not None:
        return count(recorded, "gzip_bytes")
    # The manifest may name what no file system holds, or what may not be read.
    with suppress(OSError):
        if path.is_file() and path.stat().st_size == row.bytes and sha256_of(path) == row.sha256:
            return gzip_size(path)
    return None


def read_evaluated(manifest: Mapping[str, Any]) -> Row:
    """Return the row of the file that an `evaluate` run names."""
    model = entry(manifest, "model")
    file = entry(model, "file")
    name, variant = text(file.get("name", "")), text(model.get("variant", ""))
    suffix = next((suffix for suffix in _VARIANT if name.endswith(suffix)), "")
    reference = text(model.get("reference", "")) or name.removesuffix(suffix)
    return Row(
        model=reference.removesuffix(f"-{variant}") if variant else reference,
        variant=variant or _VARIANT.get(suffix, ""),
        family=_family(manifest),
        file=name,
        sha256=digest(file.get("sha256")),
        bytes=count(file.get("bytes"), "bytes"),
        gzip_bytes=count(file.get("gzip_bytes"), "gzip_bytes"),
    )


def _family(manifest: Mapping[str, Any]) -> str:
    return text(entry(manifest["model"], "config").get("name") or "")


def digest(value: object) -> str:
    """Return a SHA-256 as 64 hexadecimal digits.

    Raises:
        DataError: it is none.
    """
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise DataError("a model file's `sha256` is no digest")
    return value
