"""Data sets in MedMNIST's .npz layout, read as untrusted files: no pickles, sizes checked first."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bloodedge.console import say
from bloodedge.data.dataset import (
    MAX_CLASSES,
    SPLITS,
    Dataset,
    Split,
    check_split,
    class_counts,
    fingerprint,
)
from bloodedge.errors import DataError

MAX_BYTES = 16 << 30
_MAX_AXIS = 1 << 40
_MAX_TEXT = 200
_KEYS = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))

BLOODMNIST_CLASSES = (
    "basophil",
    "eosinophil",
    "erythroblast",
    "immature granulocyte",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
)


@dataclass(frozen=True)
class KnownSet:
    """What a file in MedMNIST's layout does not say of its images.

    Attributes:
        title: what the set is called.
        class_names: the names of the classes.
        licence: of the images, with whom to name.
    """

    title: str
    class_names: tuple[str, ...]
    licence: str


_RESPLIT = KnownSet(
    "PBC re-split (BloodMNIST protocol)",
    BLOODMNIST_CLASSES,
    "CC BY 4.0, A. Acevedo et al., Data in Brief 30 (2020) 105474",
)
# By their fingerprints.
KNOWN_SETS = {
    "0ff1a9b6633c6c747e2e7c8bb0552947933b1121f90b70837d09a15c7cfaeaf3": _RESPLIT,
    "2b6bc326ee80bee1fc09d69e12d750b00c0939d256f89a1cd8e83c1cea3f52bb": _RESPLIT,
}


def load_npz(path: Path, class_names: tuple[str, ...] | None = None) -> Dataset:
    """Load a file with `{train,val,test}_{images,labels}`, and optionally `class_names`.

    A file that `bloodedge data synth` wrote says so under `synthetic`, and stays synthetic.

    Args:
        path: the file.
        class_names: the names of the classes; without them, the file's own `class_names` array
            (unicode strings), those of a known set, or `class 0`, `class 1`, ...

    Raises:
        DataError: the file is missing, truncated, pickled, or not in that layout.
    """
    arrays = read_arrays(path)
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise DataError(
            f"{path} lacks {', '.join(missing)}", expected="an .npz in MedMNIST's layout"
        )
    splits = {s: _split(arrays[f"{s}_images"], arrays[f"{s}_labels"], s, path) for s in SPLITS}
    # Before anything is made of them: a fingerprint needs plain arrays, names need a sane label.
    for name, split in splits.items():
        check_split(name, split, MAX_CLASSES, str(path))
    _check_same_size(splits, path)
    title, details = f"{path.name} (MedMNIST layout)", {"file": path.name}
    names = class_names or _own_names(arrays, path)
    if names is None and (known := KNOWN_SETS.get(fingerprint(splits))):
        title, names, details["licence"] = known.title, known.class_names, known.licence
    names = names or _numbered(splits, path)
    for name, split in splits.items():
        check_split(name, split, len(names), str(path))
    _tell_of_unlearnt(splits["train"], names, path)
    drawn = _text(arrays["synthetic"], path) if "synthetic" in arrays else ""
    origin = "synthetic" if drawn else "npz"
    return Dataset(path.stem, origin, drawn or title, names, splits, details)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of an .npz without unpickling, after checking the sizes it declares.

    What else the file holds, such as a README or what a Mac adds, is left alone.

    Raises:
        DataError: the file is missing, damaged, pickled, or larger than 16 GiB unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if _is_array(archive, info)]
            total = sum(info.file_size for info in members)
            if total > MAX_BYTES:
                raise DataError(f"{path} unpacks to {total >> 20} MiB", expected="at most 16 GiB")
            return {
                info.filename.removesuffix(".npy"): _read_array(archive, info) for info in members
            }
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", fix="check --data") from None
    except DataError:
        raise
    # Damaged bytes make zipfile, its decompressors, NumPy and the parser NumPy reads headers with
    # raise some fifteen types between them, and every one means the same to a user.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read: {error}",
            expected="an .npz file of plain arrays (no pickled objects)",
            fix="download or write it again",
        ) from error


def _is_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bool:
    """Return whether a member is an array by its name; one that is damaged raises an error.

    The name stands in the file twice. Opening a member compares the two, so that no array is
    skipped because one of them is damaged; only then it is refused for how it is packed.
    """
    named = info.filename.endswith(".npy") and not info.filename.startswith("__MACOSX/")
    try:
        with archive.open(info):
            return named
    # Another way to compress, or a password: RuntimeError, of which the other is one.
    except RuntimeError:
        if named:
            raise
        return False


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one member, refusing a header that declares more than the member holds."""
    with archive.open(info) as file:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = header(file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds pickled objects")
        # Exact Python integers: NumPy's would overflow on a header made to that end.
        declared = dtype.itemsize * math.prod(shape)
        if declared > info.file_size or not all(0 <= n < _MAX_AXIS for n in shape):
            raise ValueError(f"{info.filename} declares {shape}, holds {info.file_size} bytes")
    with archive.open(info) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


def _split(images: NDArray[Any], labels: NDArray[Any], name: str, path: Path) -> Split:
    if labels.dtype.kind not in "iu" or labels.ndim not in (1, 2) or labels[:1].size > 1:
        raise DataError(
            f"{path}: {name}_labels has shape {labels.shape} and type {labels.dtype}",
            expected="integers (N,) or (N, 1): one class an image",
        )
    if images.ndim == 3 and images.dtype == np.uint8:
        # MedMNIST's grey sets have no channel axis; the models take RGB.
        images = np.repeat(images[..., None], 3, axis=3)
    return Split(images, labels.reshape(-1).astype(np.int64))


def _own_names(arrays: Mapping[str, NDArray[Any]], path: Path) -> tuple[str, ...] | None:
    names = arrays.get("class_names")
    if names is None:
        return None
    if names.dtype.kind != "U" or names.ndim != 1 or not 2 <= len(names) <= MAX_CLASSES:
        raise DataError(
            f"{path}: class_names has shape {names.shape} and type {names.dtype}",
            expected="unicode strings (C,)",
        )
    texts = tuple(_text(name, path) for name in names)
    if len(set(texts)) < len(texts):
        raise DataError(f"{path}: class_names repeats a name")
    return texts


def _numbered(splits: Mapping[str, Split], path: Path) -> tuple[str, ...]:
    """Return `class 0`, `class 1`, ... as far as the labels go."""
    highest = max(int(split.labels.max()) for split in splits.values())
    if highest == 0:
        raise DataError(f"{path}: every label is 0", expected="two classes or more")
    say(f"{path} holds no class_names: its classes are called class 0 to class {highest}")
    return tuple(f"class {i}" for i in range(highest + 1))


def _tell_of_unlearnt(train: Split, names: tuple[str, ...], path: Path) -> None:
    """Say which classes no image of train shows: a wrong label makes many of them."""
    counts = class_counts(train.labels, len(names))
    lacking = [name for name, count in zip(names, counts, strict=True) if not count]
    if lacking:
        say(
            f"warning: {path}: train has no image of {len(lacking)} of {len(names)} classes, "
            f"such as {lacking[0]!r}"
        )


def _text(value: NDArray[Any] | np.str_, path: Path) -> str:
    """Return one short printable line from an untrusted file: no escape codes, no newlines."""
    text = str(value)
    if not text.strip() or len(text) > _MAX_TEXT or not text.isprintable():
        raise DataError(
            f"{path} holds the text {text[:_MAX_TEXT]!r}",
            expected=f"one printable line of at most {_MAX_TEXT} characters",
        )
    return text.strip()


def _check_same_size(splits: Mapping[str, Split], path: Path) -> None:
    shapes = {split.images.shape[1:] for split in splits.values()}
    if len(shapes) > 1:
        raise DataError(f"{path}: the splits differ in image size: {sorted(shapes)}")
