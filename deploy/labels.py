"""Class names inside a .tflite: `labels.txt` in a stored zip behind the flatbuffer.

This is the TFLite metadata convention for associated files. Runtimes read the flatbuffer from the
front and ignore what follows; zip tools read from the back and ignore what precedes. Other tools
name the file as they like. The runner, which is copied alone to devices, chooses and reads it by
the same rule: `bloodedge.benchmarks.runner.model_labels`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from bloodedge.data.dataset import MAX_CLASSES
from bloodedge.errors import ModelError

LABELS_FILE = "labels.txt"
MAX_LABELS_BYTES = 1 << 20
# The earliest date a zip can hold: the same model gives the same bytes on every day.
_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


def append_labels(model: bytes, names: Sequence[str]) -> bytes:
    """Return a .tflite's bytes followed by a zip that holds the class names.

    Raises:
        ModelError: a name is empty, spans lines or cannot be printed, or labels are there already.
    """
    for name in names:
        if not name.strip() or not name.isprintable():
            raise ModelError(f"the class name {name!r} cannot be a line of {LABELS_FILE}")
    if zipfile.is_zipfile(io.BytesIO(model)):
        raise ModelError("the model has associated files already")
    entry = zipfile.ZipInfo(LABELS_FILE, _DATE)
    entry.create_system = _UNIX
    entry.external_attr = 0o644 << 16
    file = io.BytesIO(model)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(entry, "".join(f"{name}\n" for name in names).encode())
    return file.getvalue()


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names in a .tflite from anywhere; empty when it holds none.

    They are the lines of `labels.txt`, else of the first text file that has `label` in its name,
    else of the first text file there is.

    Raises:
        ModelError: the file is missing, or its labels are damaged, too many or unprintable.
    """
    try:
        if not path.is_file():
            raise ModelError(f"{path} does not exist")
        if not zipfile.is_zipfile(path):
            return ()
        text = _read(path)
    # zipfile answers damage with half a dozen kinds; RuntimeError is an encrypted member.
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise ModelError(f"{path}: its labels cannot be read: {error}") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) > MAX_CLASSES:
        raise ModelError(f"{path} names {len(names)} classes", expected=f"at most {MAX_CLASSES}")
    # An escape sequence in a name would reach the user's terminal.
    if not all(name.isprintable() for name in names):
        raise ModelError(f"{path}: its labels hold characters that cannot be printed")
    return names


def _read(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        texts = [entry for entry in archive.infolist() if entry.filename.endswith(".txt")]
        if not texts:
            return ""
        # The first of the best.
        chosen = min(texts, key=lambda e: (e.filename != LABELS_FILE, "label" not in e.filename))
        with archive.open(chosen) as file:
            data = file.read(MAX_LABELS_BYTES + 1)
    if len(data) > MAX_LABELS_BYTES:
        raise ValueError(f"it holds more than {MAX_LABELS_BYTES >> 20} MiB")
    # Windows' editors put a mark in front, which would be a part of the first name.
    return data.decode("utf-8-sig")
