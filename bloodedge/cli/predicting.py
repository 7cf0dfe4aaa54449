"""`bloodedge predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.deploy.predict import Prediction

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
    """Classify image files: cell type and probabilities."""
    import json
    from dataclasses import replace

    from bloodedge.cli.starting import start_backend
    from bloodedge.deploy.predict import PredictConfig, image_files
    from bloodedge.deploy.predict import predict as run
    from bloodedge.deploy.predict_files import check_free, write_csv, write_sheet
    from bloodedge.references import find_model

    reference = find_model(model)
    shown = top if top is not None or as_json else _TABLE_TOP
    files = image_files(images)
    config = PredictConfig(reference, tuple(files), None if csv else shown, crop)
    check_free(csv, sheet, [reference.path, *images, *files], force=force)
    start_backend(context, backend, [reference])
    predictions = run(config)
    if csv:
        write_csv(predictions, csv)
    if sheet:
        write_sheet(predictions, sheet, crop=crop)
    predictions = [replace(p, ranked=p.ranked[:shown]) for p in predictions]
    if as_json:
        print(json.dumps([prediction.to_json() for prediction in predictions], indent=2))
    else:
        _print_predictions(predictions)


def _print_predictions(predictions: Sequence[Prediction]) -> None:
    from bloodedge.deploy.predict import printable
    from bloodedge.tables import print_table, table

    others = len(predictions[0].ranked) > 1
    head = ("image", "class", "probability %", *(["then"] if others else []))
    rows = []
    for prediction in predictions:
        (name, p), *rest = prediction.ranked
        then = [", ".join(f"{other} {100 * q:.1f}" for other, q in rest)] if others else []
        rows.append((printable(prediction.image), name, f"{100 * p:.1f}", *then))
    print_table(table(head, rows, words=("class", "then")))
