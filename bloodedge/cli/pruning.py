"""`bloodedge prune`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.starting import (
    optional_teaching,
    refuse_other_data,
    refuse_unheeded,
    start_training,
)
from bloodedge.cli.weight_figures import print_weights

if TYPE_CHECKING:
    from bloodedge.compress.channels.plan import Plan

# What only one way to prune heeds, and what fine-tuning alone does.
_CHANNELS = ("--macs", "--kb", "--ratio", "--importance", "--floor", "--renorm", "--dry-run")
_WEIGHTS = ("--sparsity", "--pattern", "--layer")
_FIT = ("--batch", "--lr", "--ema", "--precision")


def prune(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A run's name, a path, or a model of the zoo.")],
    channels: Annotated[
        bool, typer.Option("--channels", help="Remove whole channels: smaller and faster.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="Set single weights to zero: a smaller download.")
    ] = False,
    macs: options.Macs = None,
    kb: options.Kb = None,
    ratio: options.Ratio = None,
    importance: options.Importance = "taylor",
    floor: options.Floor = 0.1,
    renorm: Annotated[
        bool,
        typer.Option(help="Take batch norm's statistics anew after the cut."),
    ] = True,
    pattern: Annotated[
        str,
        typer.Option(
            "--pattern", help="Pattern of the zeros: unstructured, or 2:4 along the inputs."
        ),
    ] = "unstructured",
    sparsity: Annotated[
        float | None,
        typer.Option("--sparsity", help="Share of each kernel that becomes zero; half by default."),
    ] = None,
    layers: options.Layers = None,
    teacher: options.Teachers = None,
    method: options.Method = "kd",
    temperature: options.Temperature = 4.0,
    alpha: options.Alpha = None,
    teacher_views: options.TeacherViews = 8,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and write nothing.")
    ] = False,
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="Epochs of fine-tuning, 0 for none.")
    ] = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    ema: options.Average = None,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    precision: options.Precision = "auto",
    devices: options.Devices = "1",
    resume: options.Resume = False,
    force: options.Force = False,
) -> None:
    """Remove what matters least from a trained model and fine-tune the rest.

    --channels makes a smaller, faster model, under one of --macs, --kb and --ratio; layers keep a
    multiple of 8 channels. --weights sets single weights to zero (--sparsity, --pattern, --layer):
    the download shrinks, the size on the device and the latency stay.
    """
    from bloodedge.cli.training import print_run
    from bloodedge.compress.channels.stage import PruneConfig, plan_channels, prune_channels
    from bloodedge.compress.sparsity import SparsityConfig, check_whole_batches, sparsify
    from bloodedge.errors import ConfigError
    from bloodedge.references import find_keras
    from bloodedge.runs import usual_name
    from bloodedge.train.recipes import fine_tuning, wide_augmentation

    if channels == weights:
        raise ConfigError("neither or both of --channels and --weights", expected="one of them")
    _refuse_others(context, weights=weights, fits=epochs != 0)
    if weights:
        check_whole_batches(devices)
    found = find_keras(model)
    fit = fine_tuning(
        epochs=epochs or None,
        batch=batch,
        learning_rate=lr,
        ema=ema,
        precision=precision,
        seed=seed,
        augment=wide_augmentation(found.manifest),
    )
    teaching = optional_teaching(
        context, teacher, method=method, temperature=temperature, alpha=alpha, views=teacher_views
    )
    refuse_other_data(context, [model, *(teacher or ())])
    if weights:
        zeros = SparsityConfig(
            model=model,
            name=name or usual_name(f"{found.name}-{_suffix(pattern, sparsity)}"),
            fit=fit,
            teaching=teaching,
            layers=tuple(layers or ()),
            force=force,
            resume=resume,
            pattern=pattern,
            sparsity=0.5 if sparsity is None else sparsity,
        )
        images = start_training(data, size=size, backend=backend, devices=devices, batch=fit.batch)
        print_weights(sparsify(zeros, images))
        return
    config = PruneConfig(
        model=model,
        name=name or usual_name(f"{found.name}-pruned"),
        fit=fit,
        macs=macs,
        kb=kb,
        ratio=ratio,
        importance=importance,
        floor=floor,
        fine_tune=epochs != 0,
        teaching=teaching,
        force=force,
        resume=resume,
        renorm=renorm,
    )
    images = start_training(data, size=size, backend=backend, devices=devices, batch=fit.batch)
    if dry_run:
        _print_plan(plan_channels(config, images))
    else:
        print_run(prune_channels(config, images))


def _refuse_others(context: typer.Context, *, weights: bool, fits: bool) -> None:
    """Refuse what the chosen way to prune does not heed."""
    from bloodedge.errors import ConfigError

    if weights:
        refuse_unheeded(context, _CHANNELS, "with --weights", expected="--channels")
        if not fits:
            raise ConfigError(
                "--epochs 0 with --weights", expected="at least 1: the zeros come with the epochs"
            )
        return
    refuse_unheeded(context, _WEIGHTS, "with --channels", expected="--weights")
    if not fits:
        refuse_unheeded(context, _FIT, "with --epochs 0", fix="fine-tune, or leave them out")


def _suffix(pattern: str, sparsity: float | None) -> str:
    return "2of4" if pattern == "2:4" else f"sparse{100 * (sparsity or 0.5):.0f}"


def _print_plan(plan: Plan) -> None:
    from bloodedge.tables import print_table, table

    rows = [
        (
            row.name,
            _change(row.channels, row.channels_left),
            _change(row.macs // 1000, row.macs_left // 1000),
            _change(row.bytes, row.bytes_left),
            row.why_not,
        )
        for row in plan.layers
    ]
    head = ("layer", "channels", "kMACs", "int8 bytes", "why not")
    print_table(table(head, rows, words=("why not",)))
    totals = plan.totals()
    for name, unit in (("macs", "MACs"), ("bytes", "bytes of int8 weights")):
        before, after = totals[name], totals[f"{name}_left"]
        print(f"{unit}: {before:,} -> {after:,} ({100 * after / before:.1f} %)")


def _change(before: int, after: int) -> str:
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"
