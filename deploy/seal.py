"""The finished .tflite: lean, with its metadata and labels, which together are kept small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bloodedge.deploy.flat.lean import lean
from bloodedge.deploy.labels import append_labels
from bloodedge.deploy.metadata import FAILED, About, notes
from bloodedge.errors import ModelError

# What metadata and labels may add to a file, in bytes.
BUDGET = 1024


def seal(content: bytes, about: About, origin: Mapping[str, Any], labels: Sequence[str]) -> bytes:
    """Return a .tflite, lean, with both metadata entries and its labels behind it.

    What a gate says is shortened to its first lines where all of them would not fit `BUDGET`. The
    labels of many classes may take more than that: they are the user's.

    Args:
        content: the file as the converter wrote it.
        about: for people and tools.
        origin: what `provenance` gives.
        labels: the class names.

    Raises:
        ModelError: the file is damaged or has metadata already, a label cannot be stored, or the
            metadata alone is larger than `BUDGET`.
    """
    bare = len(lean(content))
    lines = list(origin.get(FAILED, ()))
    for kept in range(len(lines), -1, -1):
        more = [f"and {len(lines) - kept} more"] if kept < len(lines) else []
        told = {**origin, FAILED: [*lines[:kept], *more]} if lines else origin
        described = lean(content, notes(about, told))
        sealed = append_labels(described, labels)
        if len(sealed) - bare <= BUDGET or kept <= 1:
            break
    if len(described) - bare > BUDGET:
        raise ModelError(
            f"the metadata takes {len(described) - bare:,} bytes",
            expected=f"at most {BUDGET:,}",
            fix="shorten --author, --license or the model's name",
        )
    return sealed
