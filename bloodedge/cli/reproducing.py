"""`bloodedge reproduce`."""

from __future__ import annotations

from typing import Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.starting import start_training

reproduce_app = typer.Typer(help="Train published results again and compare.", no_args_is_help=True)


@reproduce_app.callback()
def group() -> None:
    """Train published results again and compare."""


@reproduce_app.command("study")
def study(
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A row, repeatable; by default all.")
    ] = None,
    recipes: Annotated[
        list[str] | None, typer.Option("--recipe", help="study or strong; by default both.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs a row, with seeds 0, 1, ...")] = 1,
    epochs: options.Epochs = None,
    show: Annotated[
        bool, typer.Option("--show", help="Only print the table of what has been run, of any data.")
    ] = False,
    backend: options.Backend = None,
    precision: options.Precision = "auto",
    devices: options.Devices = "1",
) -> None:
    """Train every row of the original study under its recipe and under ours.

    What has been run is kept and what was interrupted continues, so the command can be repeated
    until the table is full. A row that fails does not keep the others from being trained.
    """
    from bloodedge.benchmarks.study import PUBLISHED, StudyConfig, reproduce, table
    from bloodedge.errors import BloodedgeError

    config = StudyConfig(
        tuple(models or PUBLISHED),
        tuple(recipes or ("study", "strong")),
        tuple(range(seeds)),
        epochs,
        precision,
    )
    if not show:
        images = start_training(
            data, size=size, backend=backend, devices=devices, batch=config.batch
        )
        try:
            reproduce(config, images)
        except BloodedgeError:
            print(table(config))
            raise
    print(table(config))
