"""`bloodedge distill`."""

from __future__ import annotations

from typing import Annotated

import typer

from bloodedge.cli import options


def distill(
    teacher: Annotated[
        str, typer.Option("--teacher", help="A run's name, a path, or a model of the zoo.")
    ],
    student: Annotated[str, typer.Option("--student", help="A model, such as cnn_se.")],
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    width: options.Width = 1.0,
    attention: options.Attention = "",
    epochs: options.Epochs = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    ema: options.Average = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Softens teacher and student.")
    ] = 4.0,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Weight of the teacher against the labels, 0 to 1.")
    ] = 0.9,
    teacher_views: Annotated[
        int,
        typer.Option(
            "--teacher-views",
            help="Over how many of the eight flips and turns the teacher runs: 1, 2, 4 or 8.",
        ),
    ] = 8,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    precision: options.Precision = "auto",
    devices: options.Devices = "1",
    resume: options.Resume = False,
    force: options.Force = False,
) -> None:
    """Distill a teacher's logits into a compact student.

    The teacher runs once over the flips and turns of every training image; its logits are kept
    and reused by later students.
    """
    from bloodedge.backend import check_backend, use_backend
    from bloodedge.cli.training import print_run
    from bloodedge.compress.distill import DistillConfig
    from bloodedge.compress.distill import distill as run
    from bloodedge.compress.targets import KdConfig
    from bloodedge.data.sources import load_data
    from bloodedge.references import find_model
    from bloodedge.train.device import spread_over
    from bloodedge.train.recipes import fit_config

    fit = fit_config(
        "strong",
        student,
        epochs=epochs,
        batch=batch,
        learning_rate=lr,
        ema=ema,
        precision=precision,
        seed=seed,
    )
    config = DistillConfig(
        teacher,
        student,
        fit,
        name or student,
        KdConfig(temperature, alpha),
        width,
        teacher_views,
        force,
        resume,
        attention,
    )
    check_backend(backend)
    find_model(teacher)
    images = load_data(data, size=size)
    use_backend(backend)
    spread_over(devices, fit.batch)
    print_run(run(config, images))
