"""`bloodedge evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.runs import Run


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
    from bloodedge.cli.starting import refuse_other_data, refuse_unheeded, start_backend
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
    refuse_other_data(context, models)
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
    from bloodedge.tables import print_table, table

    if not runs:
        return
    head = (
        *("model", "accuracy % [95 %]", "AUC", "macro F1", "ECE", "worst recall %"),
        "of class",
    )
    rows = [(str(run.manifest["model"]["reference"]), *_cells(run, split)) for run in runs]
    title = f"{runs[0].manifest['data']['title']}, {split}"
    print_table(table(head, rows, words=("of class",), title=title))
    for run in runs:
        print(run.path)


def _cells(run: Run, split: str) -> list[str]:
    m = run.manifest["metrics"][split]
    low, high = m["accuracy_95ci"]
    names = run.manifest["data"]["class_names"]
    # A class without images has no recall, and so cannot be the worst.
    seen = [i for i, row in enumerate(m["confusion"]) if sum(row)]
    worst = min(seen, key=lambda i: float(m["recall"][i]))
    return [
        f"{100 * m['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]",
        "" if m["auc"] is None else f"{m['auc']:.4f}",
        f"{m['macro_f1']:.4f}",
        f"{m['ece']:.4f}",
        f"{100 * m['recall'][worst]:.2f}",
        str(names[worst]),
    ]
