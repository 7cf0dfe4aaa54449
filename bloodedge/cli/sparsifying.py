"""Weight pruning: what `bloodedge prune --weights` runs and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.runs import Run


def sparsify_weights(
    model: str,
    *,
    pattern: str,
    sparsity: float,
    layers: tuple[str, ...],
    teacher: str,
    kd: tuple[float, float],
    teacher_views: int,
    data: str,
    size: int | None,
    name: str | None,
    backend: str | None,
    resume: bool,
    force: bool,
    **fit: Any,
) -> None:
    """Set weights to zero while fine-tuning, write the run, and print what became of each layer.

    Args:
        model: a run's name, a path, or a model of the zoo.
        pattern: `unstructured` or `2:4`.
        sparsity: the share of each kernel that becomes zero.
        layers: names of layers to prune instead of the default choice.
        teacher: whose logits to fine-tune towards, or empty.
        kd: temperature and alpha.
        teacher_views: over how many views the teacher runs.
        data: as `--data`.
        size: as `--size`.
        name: the run's name; by default made of the model's and the pattern.
        backend: as `--backend`.
        resume: as `--resume`.
        force: as `--force`.
        fit: settings of the fit; None leaves those of `fine_tuning`.
    """
    from bloodedge.backend import check_backend, use_backend
    from bloodedge.compress.sparsity import SparsityConfig, sparsify
    from bloodedge.compress.targets import KdConfig
    from bloodedge.data.sources import load_data
    from bloodedge.references import find_model
    from bloodedge.train.recipes import fine_tuning

    suffix = "2of4" if pattern == "2:4" else f"sparse{100 * sparsity:.0f}"
    config = SparsityConfig(
        model=model,
        name=name or f"{find_model(model).name}-{suffix}",
        fit=fine_tuning(**fit),
        teacher=teacher,
        kd=KdConfig(*kd),
        teacher_views=teacher_views,
        layers=layers,
        force=force,
        resume=resume,
        pattern=pattern,
        sparsity=sparsity,
    )
    check_backend(backend)
    if teacher:
        find_model(teacher)
    images = load_data(data, size=size)
    use_backend(backend)
    print_weights(sparsify(config, images))


def print_weights(run: Run) -> None:
    """Print a table of the layers, the sizes before and after, and what val says."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bloodedge.cli.training import print_run

    weights = run.manifest["model"]["weights"]
    table = Table("layer", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("weights", "zeros %", "values"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("left alone because")
    for row in weights["layers"]:
        counted = f"{row['weights']:,}" if row["weights"] else "-"
        zeros = f"{100 * row['sparsity']:.2f}" if row["weights"] else "-"
        values = f"{row['values']:,}" if row["weights"] else "-"
        table.add_row(escape(row["name"]), counted, zeros, values, escape(row["reason"]))
    console = Console(highlight=False)
    console.print(table)
    before, after = weights["sizes"]["before"], weights["sizes"]["after"]
    for kind in before:
        console.print(
            f"{kind} weights: {after[kind]['bytes']:,} bytes; gzip {before[kind]['gzip_bytes']:,} "
            f"-> {after[kind]['gzip_bytes']:,}",
            soft_wrap=True,
        )
    console.print(f"counted: {weights['counted']}\n{weights['note']}", soft_wrap=True)
    print_run(run)


def prune_weights(
    model: Annotated[str, typer.Argument(help="A run's name, a path, or a model of the zoo.")],
    pattern: Annotated[
        str, typer.Option("--pattern", help="unstructured, or 2:4 along the input channels.")
    ] = "unstructured",
    sparsity: Annotated[
        float, typer.Option("--sparsity", help="Share of each kernel that becomes zero.")
    ] = 0.5,
    layers: options.Layers = None,
    teacher: options.FineTuningTeacher = "",
    temperature: options.Temperature = 4.0,
    alpha: options.Alpha = 0.9,
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
    """Set single weights to zero while fine-tuning: a smaller download, no smaller file."""
    sparsify_weights(
        model,
        pattern=pattern,
        sparsity=sparsity,
        layers=tuple(layers or ()),
        teacher=teacher,
        kd=(temperature, alpha),
        teacher_views=teacher_views,
        data=data,
        size=size,
        name=name,
        backend=backend,
        resume=resume,
        force=force,
        epochs=epochs,
        batch=batch,
        learning_rate=lr,
        ema=ema,
        seed=seed,
    )
