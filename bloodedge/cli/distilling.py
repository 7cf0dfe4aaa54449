"""`bloodedge distill`."""

from __future__ import annotations

from typing import Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.starting import (
    refuse_other_data,
    refuse_temperature,
    refuse_unheeded,
    start_training,
    teaching_config,
)


def distill(
    context: typer.Context,
    student: Annotated[str, typer.Option("--student", help="A model, such as cnn_se.")],
    teacher: options.Teachers = None,
    method: options.Method = "kd",
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    width: options.Width = 1.0,
    attention: options.Attention = "",
    epochs: options.Epochs = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    ema: options.Average = None,
    temperature: options.Temperature = 4.0,
    alpha: options.Alpha = None,
    teacher_views: options.TeacherViews = 8,
    teacher_logits: Annotated[
        str,
        typer.Option(
            "--teacher-logits",
            help="A file that keeps the teacher's logits: written with --teacher, over others only "
            "with --force, used without.",
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
    from bloodedge.compress.teaching import parents
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
    teaching = teaching_config(
        teacher,
        method=method,
        temperature=temperature,
        alpha=alpha,
        views=teacher_views,
        logits=teacher_logits,
        live=live or patient,
    )
    refuse_temperature(context, method)
    if teaching.live or not teacher:
        why = "with a live teacher" if teaching.live else "without --teacher"
        refuse_unheeded(context, ("--teacher-views",), why)
    config = DistillConfig(teaching, student, fit, name or student, width, force, resume, attention)
    parents(teaching)
    refuse_other_data(context, teacher or ())
    images = start_training(data, size=size, backend=backend, devices=devices, batch=fit.batch)
    print_run(run(config, images))
