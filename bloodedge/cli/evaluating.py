"""`bloodedge evaluate` and `bloodedge predict`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.deploy.predict import Prediction
    from bloodedge.runs import Run

# Classes that the table shows for an image unless asked for more.
_TABLE_TOP = 3


def evaluate(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(
            help="Runs, .keras or .tflite files, or zoo names; an export run is all its variants."
        ),
    ],
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "test",
    name: options.Name = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="TFLite interpreters side by side; by default all cores."),
    ] = None,
    backend: options.Backend = None,
    force: options.Force = False,
) -> None:
    """Evaluate models on one split; each becomes a run folder with its predictions."""
    from bloodedge.cli.starting import refuse_unheeded, start_backend
    from bloodedge.data.sources import load_data
    from bloodedge.deploy.evaluate import EvaluateConfig, told_apart
    from bloodedge.deploy.evaluate import evaluate as run
    from bloodedge.errors import ConfigError
    from bloodedge.references import find_all

    found = find_all(models)
    if name and len(found) > 1:
        raise ConfigError(
            f"one --name for {len(found)} models", fix="leave it out, or name one file"
        )
    configs = [EvaluateConfig(model, split, name, force, workers) for model in told_apart(found)]
    if not any(model.is_tflite for model in found):
        refuse_unheeded(context, ("--workers",), "without a .tflite file")
    start_backend(context, backend, found)
    dataset = load_data(data, size=size)
    done: list[Run] = []
    try:
        for config in configs:
            done.append(run(config, dataset))
    finally:
        # What was finished before one failed is worth seeing.
        _print_runs(done, split)


def _print_runs(runs: Sequence[Run], split: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    if not runs:
        return
    data = runs[0].manifest["data"]
    title = escape(f"{data['title']}, {split}")
    heads = (r"accuracy % \[95 %]", "AUC", "macro F1", "ECE", "worst class recall %", "images/s")
    # Names whose ends differ must not lose them on a narrow terminal.
    table = Table(Column("model", overflow="fold"), *heads, title=title)
    for run in runs:
        table.add_row(escape(str(run.manifest["model"]["reference"])), *_cells(run, split))
    Console().print(table)
    for run in runs:
        print(run.path)


def _cells(run: Run, split: str) -> list[str]:
    from rich.markup import escape

    m = run.manifest["metrics"][split]
    low, high = m["accuracy_95ci"]
    names = run.manifest["data"]["class_names"]
    # A class without images has no recall, and so cannot be the worst.
    seen = [i for i, row in enumerate(m["confusion"]) if sum(row)]
    worst = min(seen, key=lambda i: float(m["recall"][i]))
    return [
        escape(f"{100 * m['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"),
        "" if m["auc"] is None else f"{m['auc']:.4f}",
        f"{m['macro_f1']:.4f}",
        f"{m['ece']:.4f}",
        f"{100 * m['recall'][worst]:.2f} ({escape(names[worst])})",
        f"{m['images_per_s']:,.0f}",
    ]


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
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bloodedge.deploy.predict import printable

    others = len(predictions[0].ranked) > 1
    table = Table("image", "class", "probability %", *(["then"] if others else []))
    for prediction in predictions:
        (name, p), *rest = prediction.ranked
        then = [", ".join(f"{other} {100 * q:.1f}" for other, q in rest)] if others else []
        row = (printable(prediction.image), name, f"{100 * p:.1f}", *then)
        table.add_row(*map(escape, row))
    Console().print(table)
