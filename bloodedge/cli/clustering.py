"""`bloodedge cluster`."""

from __future__ import annotations

from typing import Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.starting import optional_teaching, refuse_other_data, start_training
from bloodedge.cli.weight_figures import print_weights


def cluster(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A run's name, a path, or a model of the zoo.")],
    clusters: Annotated[
        int, typer.Option("--clusters", help="Distinct values in each kernel.")
    ] = 16,
    init: Annotated[
        str, typer.Option("--init", help="How the first are found: kmeans++, linear or density.")
    ] = "kmeans++",
    preserve_sparsity: Annotated[
        bool,
        typer.Option(
            "--preserve-sparsity",
            help="Keep zeros; a run of prune --weights asks for it by itself.",
        ),
    ] = False,
    layers: options.Layers = None,
    teacher: options.Teachers = None,
    method: options.Method = "kd",
    temperature: options.Temperature = 4.0,
    alpha: options.Alpha = None,
    teacher_views: options.TeacherViews = 8,
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    epochs: options.Epochs = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    ema: options.Average = None,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    resume: options.Resume = False,
    force: options.Force = False,
) -> None:
    """Let the weights of each kernel share a few values, while fine-tuning.

    That makes a smaller download, no smaller file on the device and no faster model.
    """
    from bloodedge.compress.clustering import ClusterConfig
    from bloodedge.compress.clustering import cluster as run
    from bloodedge.references import find_keras
    from bloodedge.runs import usual_name
    from bloodedge.train.recipes import cluster_tuning, wide_augmentation

    found = find_keras(model)
    fit = cluster_tuning(
        epochs=epochs,
        batch=batch,
        learning_rate=lr,
        ema=ema,
        seed=seed,
        augment=wide_augmentation(found.manifest),
    )
    teaching = optional_teaching(
        context, teacher, method=method, temperature=temperature, alpha=alpha, views=teacher_views
    )
    config = ClusterConfig(
        model=model,
        name=name or usual_name(f"{found.name}-cluster{clusters}"),
        fit=fit,
        teaching=teaching,
        layers=tuple(layers or ()),
        force=force,
        resume=resume,
        clusters=clusters,
        init=init,
        preserve_sparsity=preserve_sparsity,
    )
    refuse_other_data(context, [model, *(teacher or ())])
    images = start_training(data, size=size, backend=backend, batch=fit.batch)
    print_weights(run(config, images))
