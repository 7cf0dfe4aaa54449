"""Whether a model fits the data: its images, and its classes by their number and names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ModelError


def check_shapes(what: str, size: int | None, classes: int, data: Dataset) -> None:
    """Check that a model takes the data's images and gives a probability for each of its classes.

    Args:
        what: the model, as the user knows it.
        size: the side of the images it takes, in pixels; None for any.
        classes: how many it tells apart.
        data: what it is to be used with.

    Raises:
        ModelError: it has another number of classes, or takes images of another size.
    """
    if classes != len(data.class_names):
        raise ModelError(
            f"{what} has {classes} classes, the data {len(data.class_names)}",
            fix="name the data it was trained on with --data, or train one on this data",
        )
    if size not in (None, data.size):
        # The images of an .npz have the size they have.
        other = "name an .npz of that size, or a folder of pictures"
        fix = other if data.origin == "npz" else f"add --size {size}"
        raise ModelError(
            f"{what} takes {size}x{size} images, the data has {data.size}x{data.size}",
            fix=f"{fix}, or train one at this size",
        )


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
