"""One entry point for every data source that `--data` can name."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from bloodedge.data import medmnist_files
from bloodedge.data.dataset import Dataset
from bloodedge.data.npz import load_npz
from bloodedge.errors import ConfigError, DataError

DEFAULT_SIZE = 64
SYNTHETIC = "synthetic"


def load_data(reference: str, *, size: int | None = None, seed: int = 0) -> Dataset:
    """Load the data set that `--data` names.

    Args:
        reference: `bloodmnist` or another 2D single-label MedMNIST set (downloaded when it is
            not in `~/.medmnist`), an .npz in MedMNIST's layout, a folder of images, `synthetic`,
            or `synthetic:N` with N train images per class. A name means the set of that name;
            write `./name` for a folder that happens to be called the same.
        size: side of the images, in pixels; without it 64, or an .npz file's own.
        seed: of the split of a folder and of the drawing of synthetic images.

    Raises:
        DataError: it is unknown, missing, damaged, or not available at that size.
        ConfigError: a package that this source needs is not installed.
    """
    name = reference.strip().lower()
    # Shells leave the tilde of --data=~/cells alone.
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 - Path's own raises on "~nobody"
    wanted = DEFAULT_SIZE if size is None else size
    if name.partition(":")[0] == SYNTHETIC:
        return _synthetic(name, wanted, seed)
    if not _is_path(reference) and name in known_names():
        return medmnist_files.load_official(medmnist_files.official_file(name, wanted))
    # Path("") is the current folder, which nobody means by saying nothing.
    if name and path.is_dir():
        from bloodedge.data.folders import load_folder

        return load_folder(path, wanted, seed)
    if path.is_file() or path.suffix == ".npz":
        return _from_npz(path, size)
    raise _unknown(reference)


def is_official(reference: str) -> bool:
    """Return whether `reference` is the name of a MedMNIST set, not a path or synthetic."""
    return not _is_path(reference) and reference.strip().lower() in known_names()


def known_names() -> list[str]:
    """Return the names of all MedMNIST sets; of BloodMNIST alone without the medmnist package."""
    try:
        return list(medmnist_files.medmnist_info())
    except ConfigError:
        return ["bloodmnist"]


def _is_path(reference: str) -> bool:
    return "/" in reference or reference.endswith(".npz") or reference.startswith(("~", "."))


def _synthetic(name: str, size: int, seed: int) -> Dataset:
    from bloodedge.data.synthetic_set import PER_CLASS, load_synthetic

    _, colon, number = name.partition(":")
    if colon and not (number.isascii() and number.isdigit() and len(number) < 9):
        raise DataError(
            f"{name!r} does not say how many images", expected="synthetic or, say, synthetic:100"
        )
    return load_synthetic(int(number) if colon else PER_CLASS, size, seed)


def _from_npz(path: Path, size: int | None) -> Dataset:
    data = load_npz(path)
    if size is not None and size != data.size:
        raise DataError(
            f"{path} holds images of {data.size}x{data.size} pixels, not {size}x{size}",
            fix=f"leave out --size, or give --size {data.size}",
        )
    return medmnist_files.recognise(path, data)


def _unknown(reference: str) -> DataError:
    if _is_path(reference):
        return DataError(f"{reference} does not exist", fix="check --data")
    near = get_close_matches(reference.lower(), [*known_names(), SYNTHETIC], 1)
    return DataError(
        f"unknown data {reference!r}",
        expected="the name of a MedMNIST set, the path of an .npz file or a folder, or synthetic",
        fix=f"did you mean {near[0]!r}?" if near else "see bloodedge data list",
    )
