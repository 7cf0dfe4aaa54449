"""`bloodedge quantize` and `bloodedge sensitivity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options
from bloodedge.cli.starting import (
    TEACHING,
    optional_teaching,
    refuse_calibration,
    refuse_other_data,
    refuse_unheeded,
    start_training,
)

if TYPE_CHECKING:
    from bloodedge.compress.quantize import QatConfig
    from bloodedge.data.dataset import Dataset
    from bloodedge.runs import Run

_MODES = ("qat", "float16", "dynamic", "int8", "int16x8", "mixed")
# What only qat heeds, and only the modes after training.
_TUNING = ("--epochs", "--batch", "--lr", "--teacher", "--backend", "--resume", "--preserve")
_POST_TRAINING = ("--calibration", "--percentile", "--float-layers", "--audit")

Model = Annotated[str, typer.Argument(help="A run, a file or a zoo model.")]
PerClass = Annotated[
    int,
    typer.Option("--calibration-per-class", help="Training images of each class that calibrate."),
]


def quantize(
    context: typer.Context,
    model: Model,
    mode: Annotated[
        str, typer.Option("--mode", help="qat, or after training: " + ", ".join(_MODES[1:]) + ".")
    ] = "int8",
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration", help="minmax, percentile or mse: activation ranges of int8 and mixed."
        ),
    ] = "minmax",
    percentile: Annotated[
        float | None,
        typer.Option(
            "--percentile", help="Where --calibration percentile cuts ranges; by default 99.99."
        ),
    ] = None,
    per_class: PerClass = 32,
    float_layers: Annotated[
        int | None,
        typer.Option("--float-layers", help="Layers that mixed leaves in float; by default 10 %."),
    ] = None,
    audit: Annotated[
        bool, typer.Option("--audit", help="Also val accuracy over 5 draws of calibration images.")
    ] = False,
    preserve: Annotated[
        str, typer.Option("--preserve", help="What qat keeps: sparsity, clusters, auto or none.")
    ] = "auto",
    teacher: options.Teachers = None,
    method: options.Method = "kd",
    temperature: options.Temperature = 4.0,
    alpha: options.Alpha = None,
    teacher_views: options.TeacherViews = 8,
    epochs: options.Epochs = None,
    batch: options.Batch = None,
    lr: options.Rate = None,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    resume: options.Resume = False,
    force: options.Force = False,
) -> None:
    """Quantize a trained model: by fine-tuning in simulated int8 (qat), or after training.

    qat writes a .keras that `bloodedge export` turns into int8; every other mode writes the
    verified .tflite itself, as export does.
    """
    from bloodedge.errors import ConfigError
    from bloodedge.references import find_keras
    from bloodedge.runs import usual_name

    if mode not in _MODES:
        raise ConfigError(f"--mode {mode!r}", expected=", ".join(_MODES))
    if mode == "qat":
        refuse_unheeded(
            context,
            _POST_TRAINING,
            "with --mode qat",
            expected="one of the modes after training",
            fix="quantize the result of qat again with --mode int8",
        )
    else:
        unheeded = (*_TUNING, *TEACHING)
        refuse_unheeded(context, unheeded, f"with --mode {mode}", expected="--mode qat")
        refuse_calibration(context, (mode,))
    if percentile is not None and calibration != "percentile":
        raise ConfigError(
            f"--percentile with --calibration {calibration}", expected="--calibration percentile"
        )
    found = find_keras(model)
    name = name or usual_name(f"{found.name}-{mode}")
    if mode == "qat":
        from bloodedge.compress.quantize import QatConfig
        from bloodedge.train.recipes import qat_tuning, wide_augmentation

        teaching = optional_teaching(
            context,
            teacher,
            method=method,
            temperature=temperature,
            alpha=alpha,
            views=teacher_views,
        )
        fit = qat_tuning(
            epochs=epochs,
            batch=batch,
            learning_rate=lr,
            seed=seed,
            augment=wide_augmentation(found.manifest),
        )
        refuse_other_data(context, [model, *(teacher or ())])
        _qat(
            QatConfig(model, fit, name, teaching, preserve, per_class, force, resume),
            start_training(data, size=size, backend=backend, batch=fit.batch),
        )
        return
    refuse_other_data(context, [model])
    from bloodedge.backend import use_backend
    from bloodedge.data.sources import load_data

    use_backend("tensorflow")
    from bloodedge.cli.exporting import print_variants
    from bloodedge.deploy.audit import DRAWS
    from bloodedge.deploy.export import ExportConfig, export
    from bloodedge.deploy.ranges import RangeConfig

    config = ExportConfig(
        model,
        name,
        (mode,),
        per_class,
        seed,
        force=force,
        ranges=RangeConfig(
            calibration, RangeConfig.percentile if percentile is None else percentile
        ),
        float_layers=float_layers,
        audit=DRAWS if audit else 0,
    )
    run = export(config, load_data(data, size=size))
    print_variants(run)
    _print_audit(run)


def _qat(config: QatConfig, data: Dataset) -> None:
    from bloodedge.compress.quantize import quantize

    result = quantize(config, data)
    metrics = result.manifest["metrics"]
    before = metrics["before"]
    print(
        f"{result.path}: val accuracy in int8 {100 * metrics['val_int8']['accuracy']:.2f} %, "
        f"before fine-tuning {100 * before['int8_accuracy_val']:.2f} %, "
        f"the parent in float {100 * before['parent_accuracy_val']:.2f} %"
    )


def _print_audit(run: Run) -> None:
    for variant, found in run.manifest["metrics"].get("audit", {}).items():
        if found["std"] is None:
            print(
                f"{variant}: val accuracy {100 * found['mean']:.2f} %, whatever the draw of "
                "calibration images: each is all of train"
            )
            continue
        print(
            f"{variant}: val accuracy over {len(found['draws'])} draws of calibration images "
            f"{100 * found['mean']:.2f} % (standard deviation {100 * found['std']:.2f}, "
            f"{100 * found['min']:.2f} to {100 * found['max']:.2f})"
        )


def sensitivity(
    context: typer.Context,
    model: Model,
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    sparsity: Annotated[
        float, typer.Option("--sparsity", help="Share of a layer's weights set to zero.")
    ] = 0.5,
    images: Annotated[
        int, typer.Option("--images", help="Val images, class-balanced; 0 for all.")
    ] = 0,
    per_class: PerClass = 32,
    seed: options.Seed = 0,
    backend: options.Backend = None,
    force: options.Force = False,
) -> None:
    """Show for each layer what quantizing or pruning it alone costs on val."""
    from bloodedge.compress.sensitivity import SensitivityConfig
    from bloodedge.compress.sensitivity import sensitivity as run
    from bloodedge.references import find_keras
    from bloodedge.runs import usual_name

    name = name or usual_name(f"{find_keras(model).name}-sensitivity")
    refuse_other_data(context, [model])
    config = SensitivityConfig(model, name, sparsity, images, per_class, seed, force)
    split = start_training(data, size=size, backend=backend)
    _print_rows(run(config, split))


def _print_rows(run: Run) -> None:
    from bloodedge.tables import print_table, table

    metrics = run.manifest["metrics"]
    pairs = ("int8 alone %", "logit error %", "pruned alone %", "logit error %")
    rows = [
        (
            row["layer"],
            f"{row['weights']:,}",
            f"{100 * row['int8_accuracy']:.2f}",
            f"{100 * row['int8_error']:.2f}",
            f"{100 * row['pruned_accuracy']:.2f}",
            f"{100 * row['pruned_error']:.2f}",
        )
        for row in metrics["layers"]
    ]
    print_table(table(("layer", "weights", *pairs), rows, title=run.manifest["data"]["title"]))
    print(
        f"{run.path}: val accuracy {100 * metrics['float_accuracy_val']:.2f} % in float, "
        f"{100 * metrics['int8_accuracy_val']:.2f} % in int8"
    )
