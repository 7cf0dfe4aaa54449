"""Predictions as files: a table with every probability, and a contact sheet to look through."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bloodedge import files
from bloodedge.deploy.gallery import MAX_CELLS, contact_sheet
from bloodedge.deploy.predict import Prediction
from bloodedge.errors import ConfigError
from bloodedge.images import read_image
from bloodedge.text import counted, printable

_THUMBNAIL = 96
_CAPTION = 24


def check_free(
    table: Path | None, sheet: Path | None, read: Sequence[Path] = (), *, force: bool
) -> None:
    """Refuse what could not be written, before anything is classified.

    Args:
        table: the CSV to write.
        sheet: the PNG to write.
        read: the files and folders that are read: the model, and the images.
        force: whether what is there is replaced.

    Raises:
        ConfigError: a file exists and `force` is not given, both are one file, one is read as
            well, or the sheet's name is no PNG's, or it would be among the images the next time.
    """
    inputs = {path.resolve() for path in read}
    for path in (table, sheet):
        if path is not None and path.resolve() in inputs:
            raise ConfigError(f"{path} is read, and would be replaced", fix="choose another name")
    if sheet is not None and sheet.resolve().parent in inputs:
        raise ConfigError(f"--sheet {sheet} would be one of the images", fix="another folder")
    if table is not None and sheet is not None and table.resolve() == sheet.resolve():
        raise ConfigError(f"--csv and --sheet are both {sheet}", expected="two files")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError(f"--sheet {sheet}", expected="a name ending in .png")
    for path in (table, sheet):
        if path is not None and path.exists() and not force:
            raise ConfigError(f"{path} exists", fix="choose another name, or add --force")


def write_csv(predictions: Sequence[Prediction], path: Path) -> None:
    """Write one line for each image: file, class, its probability, then every class's."""
    names = sorted(name for name, _ in predictions[0].ranked)
    rows = (
        (str(p.image), *p.ranked[0], *(dict(p.ranked)[name] for name in names)) for p in predictions
    )
    files.write_csv(path, ("image", "class", "probability", *names), rows)


def write_sheet(predictions: Sequence[Prediction], path: Path, *, crop: int | None = None) -> None:
    """Draw the images as a PNG, those the model is least sure of first, as many as fit.

    Args:
        predictions: what it says of them.
        path: the PNG.
        crop: as they were classified.
    """
    doubtful = sorted(predictions, key=lambda prediction: prediction.ranked[0][1])
    shown = doubtful[:MAX_CELLS]
    captions = [
        f"{printable(p.image.name)[-_CAPTION:]}\n{p.ranked[0][0][:_CAPTION]} {p.ranked[0][1]:.3f}"
        for p in shown
    ]
    images = [read_image(p.image, _THUMBNAIL, crop) for p in shown]
    many = f"{len(shown)} of " if len(shown) < len(predictions) else ""
    title = f"{many}{counted(len(predictions), 'image')}, the least sure first"
    contact_sheet(images, captions, title, path)
