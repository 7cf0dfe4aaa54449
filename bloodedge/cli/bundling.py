"""`bloodedge bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bloodedge.cli import options

# What --check does not heed.
_MAKING = ("--out", "--images", "--data", "--size", "--seed", "--force")


def bundle(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, .tflite files or zoo names; an export run means all its files."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="A .zip, or a folder.")] = Path("bundle.zip"),
    images: Annotated[
        int, typer.Option("--images", help="Test images, class-balanced; 0 for all.")
    ] = 400,
    data: options.Data = "bloodmnist",
    size: options.Size = None,
    seed: options.Seed = 0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a .zip, an empty folder or an old bundle.")
    ] = False,
    check: Annotated[
        Path | None, typer.Option("--check", help="Check a bundle instead of making one.")
    ] = None,
    unpack: Annotated[
        Path | None, typer.Option("--unpack", help="With --check: the folder to unpack it into.")
    ] = None,
) -> None:
    """Pack models, test images and the runner for a device; it needs nothing else of bloodedge."""
    from bloodedge.cli.starting import refuse_other_data, refuse_unheeded
    from bloodedge.errors import ConfigError

    if check is not None:
        refuse_unheeded(context, _MAKING, "with --check", expected="nothing but --unpack")
        _check(check, unpack, list(models or ()))
        return
    if unpack is not None:
        raise ConfigError("--unpack without --check", fix="add --check BUNDLE")
    from bloodedge.benchmarks.bundle import BundleConfig
    from bloodedge.benchmarks.bundle import bundle as run
    from bloodedge.data.sources import load_data

    config = BundleConfig(tuple(models or ()), out, images, seed, force)
    refuse_other_data(context, config.models)
    print(run(config, load_data(data, size=size)))


def _check(path: Path, unpack: Path | None, models: list[str]) -> None:
    from bloodedge.benchmarks.bundle_check import check_bundle, unpack_bundle
    from bloodedge.errors import ConfigError
    from bloodedge.text import kilobytes

    if models:
        raise ConfigError("--check with models", expected="one of the two")
    found = check_bundle(path) if unpack is None else unpack_bundle(path, unpack)
    print(f"{path}: {len(found.files)} files, {kilobytes(found.bytes)} KB, all as their sums say")
