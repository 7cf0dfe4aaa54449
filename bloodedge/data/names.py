"""Whether a model's classes are those of the data, by their names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ModelError


def check_names(path: Path, known: Sequence[str], data: Dataset) -> None:
    """Check that a model's class names are the data's; other names are told, not refused.

    Raises:
        ModelError: some are the same, in other places.
    """
    ours, theirs = (
        {_folded(name): place for place, name in enumerate(names)}
        for names in (data.class_names, known)
    )
    if not known or theirs == ours:
        return
    if moved := [name for name, place in theirs.items() if ours.get(name, place) != place]:
        raise ModelError(
            f"{path} has the data's classes in another order, such as {known[theirs[moved[0]]]!r}",
            expected=", ".join(map(str, known)),
        )
    say(f"{path}: the model and the data name their classes differently; indices are compared")


def _folded(name: str) -> str:
    """Return a name as it is compared: a Mac takes letters apart from their accents."""
    return unicodedata.normalize("NFC", str(name).strip().casefold())
