"""`bloodedge export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.runs import Run


def export(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A run, a file or a zoo model; by default the newest run.")
    ] = None,
    named: Annotated[str | None, typer.Option("--model", help="The same, as an option.")] = None,
    tflite: Annotated[
        bool, typer.Option("--tflite", help="Write .tflite, the only format.")
    ] = True,
    variants: Annotated[
        str, typer.Option("--variants", help="Which to write, with commas between.")
    ] = "float32,float16,dynamic,int8",
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    name: options.Name = None,
    per_class: Annotated[
        int,
        typer.Option(
            "--calibration-per-class", help="Training images of each class that calibrate int8."
        ),
    ] = 32,
    verify_images: Annotated[
        int | None,
        typer.Option(
            "--verify-images",
            help="Val images to compare with the parent, class-balanced; 0 for all. By default "
            "all, or 512 for models of a million parameters and more.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Images an inference takes.")] = 1,
    io: Annotated[
        str, typer.Option("--io", help="What int8 takes and gives: uint8, int8 or float32.")
    ] = "uint8",
    compat: Annotated[
        str,
        typer.Option("--compat", help="Refuse what this runtime would not load: tflite-runtime."),
    ] = "",
    max_drop: options.MaxDrop = None,
    max_class_drop: options.MaxClassDrop = None,
    max_ece: options.MaxEce = None,
    allow_failing: Annotated[
        bool,
        typer.Option("--allow-failing", help="Write what fails its gate, marked as failing."),
    ] = False,
    author: Annotated[str, typer.Option("--author", help="For the files' metadata.")] = "",
    licence: Annotated[str, typer.Option("--license", help="For the files' metadata.")] = "",
    c_array: Annotated[
        bool, typer.Option("--c-array", help="Also write each file as a C header.")
    ] = False,
    snippets: Annotated[
        bool,
        typer.Option("--snippets", help="Also write Kotlin (Android) and C++ that call each file."),
    ] = False,
    seed: options.Seed = 0,
    force: options.Force = False,
) -> None:
    """Convert a trained model to TFLite and check every file against its parent on val."""
    from bloodedge.backend import use_backend
    from bloodedge.cli.starting import refuse_calibration, refuse_other_data
    from bloodedge.console import say
    from bloodedge.data.sources import load_data
    from bloodedge.errors import ConfigError
    from bloodedge.references import find_keras, latest_run
    from bloodedge.runs import usual_name

    if model and named and model != named:
        raise ConfigError(f"two models, {model!r} and {named!r}", expected="one")
    reference = model or named
    if reference is None:
        reference = latest_run(("train", "distill", "prune", "sparsify", "cluster", "quantize"))
        say(f"exporting the newest run, {reference}")
    chosen = tuple(part.strip() for part in variants.split(",") if part.strip())
    # Before TensorFlow loads: a name that means nothing is refused at once.
    name = name or usual_name(f"{find_keras(reference).name}-tflite")
    refuse_other_data(context, [reference])
    use_backend("tensorflow")
    from bloodedge.deploy.export import ExportConfig
    from bloodedge.deploy.export import export as run

    config = ExportConfig(
        model=reference,
        name=name,
        variants=chosen,
        per_class=per_class,
        seed=seed,
        verify_images=verify_images,
        force=force,
        batch=batch,
        io=io,
        compat=compat,
        max_drop=max_drop,
        max_class_drop=max_class_drop,
        max_ece=max_ece,
        allow_failing=allow_failing,
        author=author,
        licence=licence,
        c_array=c_array,
        snippets=snippets,
    )
    refuse_calibration(context, chosen)
    print_variants(run(config, load_data(data, size=size)))


def print_variants(run: Run) -> None:
    """Print the size and the figures of every variant of an export."""
    from bloodedge.tables import print_table, table

    head = (
        *("variant", "KB", "KB gzip", "agreement %", "largest difference"),
        *("val accuracy %", "gate"),
    )
    rows = [
        (
            variant,
            f"{found['bytes'] / 1000:.1f}",
            f"{found['gzip_bytes'] / 1000:.1f}",
            f"{100 * found['agreement']:.2f}",
            f"{found['max_difference']:.2g}",
            f"{100 * found['accuracy_val']:.2f}",
            "failed" if found["failed"] else "passed",
        )
        for variant, found in run.manifest["metrics"]["variants"].items()
    ]
    print_table(table(head, rows, title=run.manifest["data"]["title"]))
    print(run.path)
