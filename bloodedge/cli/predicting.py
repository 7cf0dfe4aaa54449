"""`bloodedge predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.deploy.predict import Prediction
    from bloodedge.references import ModelReference

# Classes that the table shows for an image unless asked for more.
_TABLE_TOP = 3


def _named(text: str) -> Path:
    """Return a path; an empty name, as of a variable that is not set, would be this folder."""
    if not text:
        raise typer.BadParameter("an empty name; expected an image file, or a folder of them")
    return Path(text)


def predict(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A run, a model file, or a model of the zoo.")],
    images: Annotated[
        list[Path], typer.Argument(help="Image files, or folders of them.", parser=_named)
    ],
    top: Annotated[
        int | None, typer.Option("--top", help="Classes to give for each image.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Also write every probability into this file.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", help="Also draw the images, the least sure first, into this PNG."),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            "--crop",
            help="Use a central square of so many pixels of each file, by default the largest; 200 "
            "for the pictures that BloodMNIST was cut from.",
        ),
    ] = None,
    backend: options.Backend = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --csv and --sheet.")] = False,
) -> None:
    """Classify image files: cell type and probabilities.

    Of files that cannot be read one line each says why; the others are classified, and it exits
    with 1.
    """
    import json
    from dataclasses import replace

    from bloodedge.cli.starting import start_backend
    from bloodedge.console import say
    from bloodedge.deploy.predict import PredictConfig, image_files
    from bloodedge.deploy.predict import predict as run
    from bloodedge.deploy.predict_files import check_free, write_csv, write_sheet
    from bloodedge.references import where_from

    reference = _find(model, images)
    say(f"model: {where_from(model, reference)}")
    shown = top if top is not None or as_json else _TABLE_TOP
    files = image_files(images)
    config = PredictConfig(reference, tuple(files), None if csv else shown, crop)
    check_free(csv, sheet, [reference.path, *images, *files], force=force)
    start_backend(context, backend, [reference])
    predictions, unread = run(config)
    if csv and predictions:
        write_csv(predictions, csv)
    if sheet and predictions:
        write_sheet(predictions, sheet, crop=crop)
    predictions = [replace(p, ranked=p.ranked[:shown]) for p in predictions]
    if as_json:
        print(json.dumps([prediction.to_json() for prediction in predictions], indent=2))
    elif predictions:
        _print_predictions(predictions, every=top is not None)
    for error in unread:
        say(f"error: {error}")
    if unread:
        raise typer.Exit(1)


def _find(model: str, images: Sequence[Path]) -> ModelReference:
    """Return the model that a name or path means.

    Raises:
        ModelError: nothing or several models are meant; where an image stands in the model's place
            and the model behind it, this is said.
        RunError: the run's manifest is damaged.
        DataError: the manifest beside a file is.
    """
    from bloodedge.errors import ModelError
    from bloodedge.references import find_model

    try:
        return find_model(model)
    except ModelError as error:
        behind = [path for path in images if _is_model(path)] if Path(model).exists() else []
        if not behind:
            raise
        raise ModelError(
            f"{model} is no model, but {behind[0]} is", expected="the model first, then the images"
        ) from error


def _is_model(path: Path) -> bool:
    from bloodedge.errors import BloodedgeError
    from bloodedge.references import find_models

    try:
        return bool(find_models(str(path)))
    except BloodedgeError:
        return False


def _print_predictions(predictions: Sequence[Prediction], *, every: bool) -> None:
    """Print a line for each image, in full or without the classes whose figure would be 0.0."""
    from bloodedge.tables import print_table, short_paths, table
    from bloodedge.text import printable

    names = short_paths(str(prediction.image) for prediction in predictions)
    rows = []
    for prediction in predictions:
        (name, p), *rest = prediction.ranked
        then = [(other, f"{100 * q:.1f}") for other, q in rest]
        told = ", ".join(f"{other} {q}" for other, q in then if every or float(q))
        rows.append((printable(names[str(prediction.image)]), name, f"{100 * p:.1f}", told))
    shown = slice(None) if any(told for *_, told in rows) else slice(-1)
    head = ("image", "class", "probability %", "then")
    print_table(table(head[shown], [row[shown] for row in rows], words=("class", "then")))
