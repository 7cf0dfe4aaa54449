"""`bloodedge train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.starting import start_training

if TYPE_CHECKING:
    from bloodedge.runs import Run


def train(
    model: Annotated[str, typer.Option("--model", help="What to train; see bloodedge models.")],
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    width: options.Width = 1.0,
    attention: options.Attention = "",
    recipe: options.Recipe = "strong",
    epochs: options.Epochs = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    ema: options.Average = None,
    progressive: Annotated[
        str,
        typer.Option(
            "--progressive",
            help="Train first on smaller images, as EPOCHSxPIXELS: 8x32 saves most of the time.",
        ),
    ] = "",
    label_smoothing: Annotated[
        float | None,
        typer.Option("--label-smoothing", help="Share of a target spread over all classes."),
    ] = None,
    balance: Annotated[
        float | None,
        typer.Option("--balance", help="Draw rare classes more often: 0 not at all, 1 alike."),
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", help="Start from the weights of this run or model.")
    ] = None,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    precision: options.Precision = "auto",
    devices: options.Devices = "1",
    coordinator: options.Coordinator = "",
    hosts: options.HostCount = 1,
    host: options.HostNumber = 0,
    resume: options.Resume = False,
    force: options.Force = False,
) -> None:
    """Train a reference model; val chooses the epoch, a run folder holds the result."""
    from bloodedge.hosts import Hosts
    from bloodedge.train.config import parse_phases
    from bloodedge.train.recipes import fit_config
    from bloodedge.train.stage import TrainConfig
    from bloodedge.train.stage import train as run

    fit = fit_config(
        recipe,
        model,
        epochs=epochs,
        batch=batch,
        learning_rate=lr,
        ema=ema,
        label_smoothing=label_smoothing,
        balance=balance,
        progressive=parse_phases(progressive),
        precision=precision,
        seed=seed,
    )
    config = TrainConfig(model, fit, name or model, width, init, force, resume, attention)
    # Keras takes the addresses of all; the first is the coordinator's.
    together = Hosts(coordinator.partition(",")[0], hosts, host)
    images = start_training(
        data, size=size, backend=backend, devices=devices, batch=fit.batch, hosts=together
    )
    print_run(run(config, images))


def print_run(result: Run) -> None:
    """Print where a trained model is and what val says of it."""
    val = result.manifest["metrics"]["val"]
    low, high = (100 * bound for bound in val["accuracy_95ci"])
    print(
        f"{result.path}: val accuracy {100 * val['accuracy']:.2f} % "
        f"(95 % interval {low:.2f} to {high:.2f}), {result.manifest['data']['title']}"
    )
