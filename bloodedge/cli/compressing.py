"""`bloodedge distill`."""

from __future__ import annotations

from typing import Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.starting import start_training


def distill(
    student: Annotated[str, typer.Option("--student", help="A model, such as cnn_se.")],
    teacher: Annotated[
        list[str] | None,
        typer.Option(
            "--teacher",
            help="A run's name, a path, or a model of the zoo. Given several times: their mean.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="kd, dkd, dist, feature; or patient: live, blended images, no labels.",
        ),
    ] = "kd",
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
        float | None,
        typer.Option(
            "--alpha",
            help="Weight of the teacher against the labels, 0 to 1; by default the method's own.",
        ),
    ] = None,
    teacher_views: Annotated[
        int,
        typer.Option(
            "--teacher-views",
            help="Over how many of the eight flips and turns the teacher runs: 1, 2, 4 or 8.",
        ),
    ] = 8,
    teacher_logits: Annotated[
        str,
        typer.Option(
            "--teacher-logits",
            help="A file that keeps the teacher's logits: written with --teacher, used without.",
        ),
    ] = "",
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="The teacher sees every image as the student does. Slow without a GPU."
        ),
    ] = False,
    mixup: Annotated[
        float | None,
        typer.Option("--mixup", help="Blend pairs of images: alpha of mixup. Needs --live."),
    ] = None,
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
    from dataclasses import replace

    from bloodedge.cli.training import print_run
    from bloodedge.compress.distill import DistillConfig
    from bloodedge.compress.distill import distill as run
    from bloodedge.compress.targets import METHODS, KdConfig
    from bloodedge.compress.teaching import TeachingConfig, parents
    from bloodedge.train.recipes import fit_config

    patient = method == "patient"
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
    if mixup is None and patient:
        mixup = 1.0
    if mixup is not None:
        fit = replace(fit, augment=replace(fit.augment, mixup=mixup))
    kd = KdConfig(temperature, METHODS.get(method, 0.0) if alpha is None else alpha, method)
    teaching = TeachingConfig(
        tuple(teacher or ()), kd, teacher_views, teacher_logits, live or patient
    )
    config = DistillConfig(teaching, student, fit, name or student, width, force, resume, attention)
    parents(teaching)
    images = start_training(data, size=size, backend=backend, devices=devices, batch=fit.batch)
    print_run(run(config, images))
