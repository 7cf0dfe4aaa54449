"""`bloodedge data`: what there is, what is in it, download, verification, synthetic files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodedge.cli import options

if TYPE_CHECKING:
    from bloodedge.data.dataset import Dataset

data_app = typer.Typer(help="List, fetch, check and describe data sets.", no_args_is_help=True)

Reference = Annotated[
    str,
    typer.Argument(
        metavar="REF", help="A MedMNIST name, an .npz file, a folder of images, or synthetic."
    ),
]

# MedMNIST's table describes each set in a paragraph; this is its web site's column "modality".
_SHOWS = {
    "pathmnist": "colon pathology",
    "dermamnist": "skin lesions (dermatoscope)",
    "octmnist": "retina (OCT)",
    "pneumoniamnist": "chest X-ray",
    "retinamnist": "fundus camera, grades 0-4",
    "breastmnist": "breast ultrasound",
    "bloodmnist": "blood cells (microscope)",
    "tissuemnist": "kidney cortex (microscope)",
    "organamnist": "abdominal CT, axial",
    "organcmnist": "abdominal CT, coronal",
    "organsmnist": "abdominal CT, sagittal",
}


@data_app.command("list")
def list_sets() -> None:
    """List the MedMNIST sets that can be used by name: 2D, one label an image."""
    from bloodedge.data.medmnist_files import SIZES, medmnist_info, official_file, supported_names
    from bloodedge.tables import print_table, table

    rows = []
    for name in supported_names():
        entry = medmnist_info()[name]
        files = [official_file(name, size) for size in SIZES]
        rows.append(
            (
                name,
                str(len(entry["label"])),
                f"{sum(entry['n_samples'].values()):,}",
                _SHOWS.get(name, ""),
                " ".join(str(size) for size in SIZES),
                " ".join(str(file.size) for file in files if file.path.is_file()) or "-",
            )
        )
    head = ("name", "classes", "images", "shows", "sizes", "cached")
    print_table(table(head, rows, words=("shows", "sizes", "cached")))


@data_app.command()
def info(reference: Reference, size: options.Size = None) -> None:
    """Say what a data set is, and how many images each class has in each split."""
    from bloodedge.data.dataset import SPLITS, class_counts
    from bloodedge.data.sources import load_data
    from bloodedge.tables import print_table, table

    data = load_data(reference, size=size)
    _print_facts(data)
    counts = [class_counts(data[split].labels, len(data.class_names)) for split in SPLITS]
    counted = [
        (name, *(f"{count:,}" for count in row))
        for name, *row in zip(data.class_names, *counts, strict=True)
    ]
    total = ("all", *(f"{len(data[split]):,}" for split in SPLITS))
    print_table(table(("class", *SPLITS), [*counted, (), total]))


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A MedMNIST set, such as bloodmnist.")],
    size: Annotated[int, typer.Option("--size", help="28, 64, 128 or 224 pixels.")] = 64,
) -> None:
    """Download an official file to MedMNIST's own cache, check its MD5, and print its path."""
    from bloodedge.data import medmnist_files

    print(medmnist_files.fetch(medmnist_files.official_file(name.lower(), size)))


@data_app.command()
def verify(reference: Reference, size: options.Size = None) -> None:
    """Check a data set: MD5 of official files, layout, labels, images in several splits.

    It downloads nothing. Images that occur in several splits are a warning, anything else an
    error.
    """
    from bloodedge.data.duplicates import shared_images
    from bloodedge.data.sources import load_data

    _require_cached(reference, size)
    data = load_data(reference, size=size)
    _print_facts(data)
    shared = {pair: count for pair, count in shared_images(data).items() if count}
    for (first, second), count in shared.items():
        print(f"warning: {count} images of {second} are in {first} too, pixel for pixel")
    print("verified, with warnings" if shared else "verified")


@data_app.command()
def synth(
    out: Annotated[Path, typer.Option("--out", help="The .npz file to write.")],
    per_class: Annotated[
        int, typer.Option("--per-class", help="Train images a class; val, test: as many, <= 60.")
    ] = 250,
    size: Annotated[int, typer.Option("--size", help="Side of the images in pixels.")] = 64,
    seed: options.Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Draw synthetic blood cells and write them in MedMNIST's layout, marked as synthetic."""
    from bloodedge.data.synthetic_set import load_synthetic, write_npz
    from bloodedge.errors import ConfigError

    # Before the drawing, not after.
    if out.suffix != ".npz":
        raise ConfigError(f"{out} does not end in .npz", fix=f"give --out {out.name}.npz")
    if out.exists() and not force:
        raise ConfigError(f"{out} exists", fix="choose another --out, or add --force")
    data = load_synthetic(per_class, size, seed)
    write_npz(out, data)
    print(f"{out}: {sum(len(split) for split in data.splits.values()):,} synthetic images")


def _require_cached(reference: str, size: int | None) -> None:
    """Refuse to verify an official file that is not there: verifying must not download it."""
    from bloodedge.data.medmnist_files import official_file
    from bloodedge.data.sources import DEFAULT_SIZE, is_official
    from bloodedge.errors import DataError

    if not is_official(reference):
        return
    file = official_file(reference.strip().lower(), DEFAULT_SIZE if size is None else size)
    if not file.path.is_file():
        raise DataError(
            f"{file.path} does not exist",
            fix=f"bloodedge data fetch {file.name} --size {file.size}",
        )


def _print_facts(data: Dataset) -> None:
    """Print the description a manifest would record, one fact a line."""
    facts = data.describe()
    for key in ("images", "class_names"):
        del facts[key]
    for key, value in facts.items():
        print(f"{key}: {value}")
