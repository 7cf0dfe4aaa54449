"""The official MedMNIST files: which there are, where they are kept, and that they are intact."""

from __future__ import annotations

import importlib.util
import runpy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bloodedge.data.dataset import Dataset
from bloodedge.data.download import download, md5_of
from bloodedge.data.npz import BLOODMNIST_CLASSES, load_npz
from bloodedge.errors import ConfigError, DataError
from bloodedge.files import user_folder

SIZES = (28, 64, 128, 224)

# MD5 of the official BloodMNIST files by size, so that one given by its path is known for what
# it is on a host without the medmnist package. A test compares them with the package.
BLOODMNIST_MD5 = {
    28: "7053d0359d879ad8a5505303e11de1dc",
    64: "2b94928a2ae4916078ca51e05b6b800b",
    128: "adace1e0ed228fccda1f39692059dd4c",
    224: "b718ff6835fcbdb22ba9eacccd7b2601",
}
_BLOODMNIST_TRAIN = 11_959


@dataclass(frozen=True)
class OfficialFile:
    """One official file: a 2D single-label set at one size.

    Attributes:
        name: MedMNIST's flag, such as `bloodmnist`.
        size: height and width of its images, in pixels.
        title: the set's name as its authors write it.
        url: where it is published.
        md5: hexadecimal MD5 of the file, as published.
        licence: of the images.
        class_names: in label order.
        path: where the medmnist package keeps it on this machine.
    """

    name: str
    size: int
    title: str
    url: str
    md5: str
    licence: str
    class_names: tuple[str, ...]
    path: Path


@cache
def medmnist_info() -> Mapping[str, Mapping[str, Any]]:
    """Return medmnist's table of sets, without importing the package.

    Its `__init__` imports torch when that is there (seconds) and prints a notice when it is not;
    `info.py` alone is a table.

    Raises:
        ConfigError: medmnist is not installed.
    """
    spec = importlib.util.find_spec("medmnist")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "the package medmnist, which lists the official files, is not installed",
            fix="pip install --no-deps medmnist, or give --data the path of an .npz file",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = runpy.run_path(str(Path(spec.origin).with_name("info.py")))["INFO"]
    return dict(table)


def root() -> Path:
    """Return the folder that holds the files: `MEDMNIST_ROOT`, or medmnist's `~/.medmnist`.

    Raises:
        ConfigError: nobody knows the user's folders.
    """
    return user_folder("MEDMNIST_ROOT", ".medmnist")


def unsupported(name: str) -> str:
    """Return why a set of medmnist's table cannot be used, or an empty string if it can."""
    entry = medmnist_info()[name]
    if "multi-label" in entry["task"]:
        return "is multi-label: its images belong to several classes at once"
    return "holds 3D volumes" if entry["python_class"].endswith("3D") else ""


def supported_names() -> list[str]:
    """Return the names of the 2D single-label sets."""
    return [name for name in medmnist_info() if not unsupported(name)]


def official_file(name: str, size: int) -> OfficialFile:
    """Look up one official file.

    Raises:
        DataError: an unknown or unsupported set, or a size that is not published.
        ConfigError: medmnist is not installed.
    """
    if name not in medmnist_info():
        raise DataError(f"no MedMNIST set is called {name!r}", expected="see bloodedge data list")
    if reason := unsupported(name):
        raise DataError(
            f"{name} {reason}",
            expected="a 2D set with one label an image",
            fix=f"choose from {', '.join(supported_names())}",
        )
    if size not in SIZES:
        raise DataError(
            f"{name} is not published at {size} pixels",
            expected=f"--size {', '.join(str(s) for s in SIZES[:-1])} or {SIZES[-1]}",
        )
    entry = medmnist_info()[name]
    tail = "" if size == SIZES[0] else f"_{size}"
    labels = tuple(entry["label"][str(i)] for i in range(len(entry["label"])))
    return OfficialFile(
        name,
        size,
        entry["python_class"],
        entry[f"url{tail}"],
        entry[f"MD5{tail}"],
        entry["license"],
        BLOODMNIST_CLASSES if name == "bloodmnist" else labels,
        root() / f"{name}{tail}.npz",
    )


def load_official(file: OfficialFile) -> Dataset:
    """Load an official file, downloading it if it is not there; its MD5 is checked either way.

    Raises:
        DataError: it cannot be fetched, or what is there is not the official file.
        BloodedgeError: the download cannot be written.
    """
    fetch(file)
    data = load_npz(file.path, file.class_names)
    details = {**data.details, "md5": file.md5, "licence": file.licence}
    title = f"{file.title} {file.size}x{file.size} (official MedMNIST file)"
    return replace(data, name=file.name, origin="official", title=title, details=details)


def recognise(path: Path, data: Dataset) -> Dataset:
    """Return `data`, marked as official if the file it came from is an official BloodMNIST one.

    Raises:
        DataError: the file cannot be read.
    """
    md5 = BLOODMNIST_MD5.get(data.size)
    # The count spares every other file the time of reading it twice.
    if md5 is None or len(data["train"]) != _BLOODMNIST_TRAIN or md5_of(path) != md5:
        return data
    return replace(
        data,
        name="bloodmnist",
        origin="official",
        title=f"BloodMNIST {data.size}x{data.size} (official MedMNIST file)",
        class_names=BLOODMNIST_CLASSES,
        details={**data.details, "md5": md5, "licence": "CC BY 4.0"},
    )


def fetch(file: OfficialFile) -> Path:
    """Download the file unless it is there, and check its MD5 (0.3 s for BloodMNIST at 64).

    Returns:
        The path of the verified file.

    Raises:
        DataError: the download fails, or the MD5 is not the published one.
        BloodedgeError: the download cannot be written.
    """
    if not file.path.is_file():
        download(file.url, file.path, file.md5)
    elif (found := md5_of(file.path)) != file.md5:
        raise DataError(
            f"{file.path} has MD5 {found}, so it is damaged or not the official file",
            expected=file.md5,
            fix="delete it to have it downloaded again; to use it as it is, give it another name "
            "and its path to --data",
        )
    return file.path
