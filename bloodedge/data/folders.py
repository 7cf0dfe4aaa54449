"""Folders of image files: one sub-folder per class, or train/val/test with class sub-folders."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bloodedge.console import say, track
from bloodedge.data.dataset import MAX_CLASSES, SPLITS, Dataset, Images, Split, check_split
from bloodedge.data.npz import MAX_BYTES
from bloodedge.data.splitting import FRACTIONS, MIN_IMAGES, crossing, divide
from bloodedge.errors import DataError
from bloodedge.images import IMAGE_SUFFIXES, decode_image, is_image_name, read_bytes
from bloodedge.text import counted, some
from bloodedge.threads import threads

_JUNK = {"thumbs.db", "desktop.ini"}
# Files that an error names at most.
_NAMED = 10
# What others call the splits, in any case.
_SPLIT_NAMES = {
    **{name: name for name in SPLITS},
    **{"training": "train", "validation": "val", "valid": "val", "testing": "test"},
}


@dataclass(frozen=True)
class _File:
    """One image file: its class, and its split where the folder says it."""

    path: Path
    label: int
    split: str = ""


def load_folder(folder: Path, size: int, seed: int) -> Dataset:
    """Load a folder of images.

    Each image is cut to its central square, resized and made uint8 RGB (see
    `bloodedge.images`). Without train, val and test sub-folders, every class is divided 70/10/20
    by `seed`, exact duplicates staying together. Hidden files and those whose names are no image's
    are skipped; of the latter in class folders the number is said. Links are followed.
    Classes are named after their folders, in Unicode's composed form: a copy on a Mac has the same.

    Args:
        folder: holds one sub-folder per class, or `train`, `val` and `test` that do; the three may
            have their other usual names, such as `validation`.
        size: side of the images, in pixels, 8 to 1024.
        seed: of the division into splits.

    Raises:
        DataError: neither layout, a class that is empty, too small or missing in a split, a
            single class, or files that are no images.
    """
    if not 8 <= size <= 1024 or seed < 0:
        raise DataError(
            f"size {size}, seed {seed}", expected="8 to 1024 pixels a side, a seed of 0 or more"
        )
    names, files, skipped = _list(folder)
    if others := sum(not _is_hidden(path) for path in skipped):
        what = "named as no image, or in no class folder"
        say(f"{folder}: {counted(others, 'file')} left out, {what}")
    if len(files) * size * size * 3 > MAX_BYTES:
        raise DataError(
            f"{len(files)} images of {size}x{size} pixels take more than 16 GiB",
            fix="choose a smaller --size",
        )
    digests, images = _read(files, size, folder)
    given = bool(files[0].split)
    labels = np.array([file.label for file in files])
    where = [file.split for file in files] if given else divide(labels, digests, names, seed)
    splits = _gather(images, labels, where)
    for name, split in splits.items():
        check_split(name, split, len(names), str(folder))
    details = _details(digests, where, seed, given)
    way = "as given" if given else f"seeded 70/10/20 split, seed {seed}"
    name = folder.resolve().name
    title = f"{name} (folder of images, {way})"
    details = {"folder": name, "split": way, "skipped_files": len(skipped), **details}
    return Dataset(name, "folder", title, names, splits, details)


def _list(folder: Path) -> tuple[tuple[str, ...], list[_File], list[Path]]:
    """Return the class names, the files in a fixed order, and what was skipped."""
    folders, loose, skipped = _children(folder)
    given = _given(folders)
    if not given:
        classes, more = _classes(folders, folder, MIN_IMAGES)
        names = tuple(sorted(classes))
        files = [_File(p, label) for label, name in enumerate(names) for p in classes[name]]
        return names, files, [*skipped, *more, *loose]
    if missing := set(SPLITS) - set(given):
        raise DataError(
            f"{folder} has {next(iter(given))}, but no {' and no '.join(sorted(missing))}",
            expected="train, val and test, or none of them",
        )
    if others := [sub for sub in folders if sub not in given.values()]:
        raise DataError(f"{others[0]} is beside train, val and test", expected="these three alone")
    found = {split: _classes(_children(sub)[0], sub, 1) for split, sub in given.items()}
    names = tuple(sorted({name for classes, _ in found.values() for name in classes}))
    files = []
    for split in SPLITS:
        classes, more = found[split]
        if absent := [name for name in names if name not in classes]:
            raise DataError(
                f"{given[split]} lacks the class {absent[0]!r}",
                expected="the same classes in train, val and test",
            )
        skipped += more
        files += [_File(p, i, split) for i, name in enumerate(names) for p in classes[name]]
    return names, files, [*skipped, *loose]


def _given(folders: list[Path]) -> dict[str, Path]:
    """Return the folders that are splits, by the split; none where the folders are classes."""
    usual = {_SPLIT_NAMES.get(sub.name.casefold(), ""): sub for sub in folders}
    # Else they may be classes: cells can be valid, or of a control and a test.
    if len(folders) == len(SPLITS) and set(usual) == set(SPLITS):
        return usual
    return {sub.name: sub for sub in folders if sub.name in SPLITS}


def _classes(
    folders: list[Path], where: Path, least: int
) -> tuple[dict[str, list[Path]], list[Path]]:
    """Return the image files of every class folder, and what was skipped."""
    if not 2 <= len(folders) <= MAX_CLASSES:
        raise DataError(
            f"{where} has {counted(len(folders), 'sub-folder')}",
            expected=f"one for each of 2 to {MAX_CLASSES} classes, or train, val and test",
        )
    classes: dict[str, list[Path]] = {}
    skipped: list[Path] = []
    for sub in folders:
        if not sub.name.strip() or not sub.name.isprintable():
            raise DataError(
                f"{where} has the class {sub.name!r}", expected="a name that can be printed"
            )
        inner, inside, hidden = _children(sub)
        if inner:
            raise DataError(f"{inner[0]} is a folder inside a class folder", expected="images")
        files = [path for path in inside if is_image_name(path)]
        others = [path for path in inside if not is_image_name(path)]
        if len(files) < least:
            beside = f" beside {counted(len(others), 'file')} of other names" if others else ""
            named = f", named {' '.join(IMAGE_SUFFIXES)}" if others else ""
            raise DataError(
                f"{sub} holds {counted(len(files), 'image')}{beside}",
                expected=f"at least {least} of each class{named}",
            )
        name = unicodedata.normalize("NFC", sub.name.strip())
        if name in classes:
            raise DataError(f"{where} has the class {name!r} twice", expected="one folder of each")
        classes[name] = files
        skipped += [*hidden, *others]
    return classes, skipped


def _children(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return a folder's sub-folders and files in order, and the hidden ones."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error
    seen = [entry for entry in entries if not _is_hidden(entry)]
    folders = [entry for entry in seen if entry.is_dir()]
    files = [entry for entry in seen if not entry.is_dir()]
    return folders, files, [entry for entry in entries if _is_hidden(entry)]


def _is_hidden(path: Path) -> bool:
    return path.name[0] == "." or path.name.lower() in _JUNK


def _read(files: list[_File], size: int, folder: Path) -> tuple[list[str], Images]:
    """Return the SHA-256 of every image, and it, (N, size, size, 3): copies may be saved anew.

    Raises:
        DataError: files cannot be read; all are counted.
    """

    def load(file: _File) -> tuple[str, Images] | DataError:
        try:
            image = decode_image(read_bytes(file.path), size, str(file.path))
        except DataError as error:
            return error
        return hashlib.sha256(image.tobytes()).hexdigest(), image

    digests: list[str] = []
    images = np.empty((len(files), size, size, 3), np.uint8)
    bad: list[tuple[Path, DataError]] = []
    # OpenCV decodes outside the interpreter's lock.
    with threads() as workers:
        loaded = track(workers.map(load, files), "reading images", len(files))
        for file, found in zip(files, loaded, strict=True):
            if isinstance(found, DataError):
                bad.append((file.path, found))
            else:
                images[len(digests)] = found[1]
                digests.append(found[0])
    if bad:
        raise _unread(bad, len(files), folder)
    return digests, images


def _unread(bad: list[tuple[Path, DataError]], files: int, folder: Path) -> DataError:
    """Return the one error for all files that cannot be read: mending each first would be slow."""
    first = bad[0][1]
    if len(bad) == 1:
        return first
    names = some([str(path.relative_to(folder)) for path, _ in bad], _NAMED)
    return DataError(f"{len(bad)} of {files} files cannot be used: {names}; the first: {first}")


def _gather(images: Images, labels: Any, where: list[str]) -> Mapping[str, Split]:
    chosen = {name: np.flatnonzero(np.array(where) == name) for name in SPLITS}
    return {s: Split(images[rows], labels[rows].astype(np.int64)) for s, rows in chosen.items()}


def _details(digests: list[str], where: list[str], seed: int, given: bool) -> dict[str, Any]:
    """Return what a manifest records; say what a user should know before trusting the split."""
    shared = crossing(digests, where)
    if shared:
        say(f"warning: {counted(shared, 'image')} in more than one split, pixel for pixel")
    recipe = {} if given else {"split_seed": seed, "fractions": dict(FRACTIONS)}
    return {
        "files": len(digests),
        "duplicate_files": len(digests) - len(set(digests)),
        "images_in_several_splits": shared,
        "crop": "central square",
        **recipe,
    }
