"""The synthetic set as a `Dataset`, and data sets written as .npz files in MedMNIST's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import say
from bloodedge.data.dataset import SPLITS, Dataset, Labels, Split, check_split
from bloodedge.data.npz import BLOODMNIST_CLASSES, MAX_BYTES, load_npz
from bloodedge.errors import BloodedgeError, ConfigError, DataError
from bloodedge.files import atomic_path, user_folder

PER_CLASS = 250
HELD_OUT_PER_CLASS = 60
MAX_PER_CLASS = 10_000
# An image takes about 3 ms to draw, so that less than this is drawn faster than read and kept.
_CACHE_ABOVE = 1500


def load_synthetic(per_class: int = PER_CLASS, size: int = 64, seed: int = 0) -> Dataset:
    """Draw the synthetic set, or read it back if this installation has drawn it before.

    Train, val and test come from three random streams, so they share no image, and val and test
    stay the same when `per_class` grows past 60. Sets of more than 1,500 images, which take
    seconds to draw, are kept in `~/.cache/bloodedge` (or under `XDG_CACHE_HOME`).

    Args:
        per_class: train images of each of the 8 classes; val and test have as many, 60 at most.
        size: side of the images, in pixels.
        seed: fixes every random choice, 0 or more.

    Raises:
        DataError: a count, size or seed that cannot be drawn.
        ConfigError: OpenCV is not installed.
    """
    if not 1 <= per_class <= MAX_PER_CLASS:
        raise DataError(
            f"synthetic:{per_class} cannot be drawn", expected=f"1 to {MAX_PER_CLASS} a class"
        )
    if seed < 0:
        raise DataError(f"the seed is {seed}", expected="0 or more")
    counts = synthetic_counts(per_class)
    total = sum(counts.values()) * len(BLOODMNIST_CLASSES)
    if total * size * size * 3 > MAX_BYTES:
        raise DataError(
            f"{total:,} images of {size}x{size} pixels take more than 16 GiB",
            fix="choose a smaller --size, or fewer images",
        )
    generator = _generator_version()
    splits = _read_or_draw(counts, size, seed, generator)
    for name, split in splits.items():
        check_split(name, split, len(BLOODMNIST_CLASSES), "synthetic")
    details = {"images_per_class": counts, "draw_seed": seed, "generator": generator}
    title = f"synthetic blood cells, drawn with seed {seed}: no real patients' images"
    return Dataset("synthetic", "synthetic", title, BLOODMNIST_CLASSES, splits, details)


def synthetic_counts(per_class: int) -> dict[str, int]:
    """Return how many images of each class the splits have."""
    held_out = min(per_class, HELD_OUT_PER_CLASS)
    return {"train": per_class, "val": held_out, "test": held_out}


def cache_folder() -> Path:
    """Return where drawn sets are kept: `bloodedge` in the user's cache folder.

    Raises:
        ConfigError: nobody knows the user's folders.
    """
    return user_folder("XDG_CACHE_HOME", ".cache") / "bloodedge"


def write_npz(path: Path, data: Dataset, *, compress: bool = True) -> None:
    """Write a data set in MedMNIST's layout, whole or not at all.

    Besides `{train,val,test}_{images,labels}` the file holds `class_names`, and for a synthetic
    set its title under `synthetic`, so that reading it back cannot pass it off as real.

    Raises:
        ConfigError: the name does not end in `.npz`.
        BloodedgeError: the file cannot be written.
    """
    if path.suffix != ".npz":
        raise ConfigError(f"{path} does not end in .npz", expected="a name that says what it is")
    arrays: dict[str, Any] = {"class_names": np.array(data.class_names)}
    for name, split in data.splits.items():
        arrays[f"{name}_images"] = split.images
        arrays[f"{name}_labels"] = _column(split.labels)
    if data.synthetic:
        arrays["synthetic"] = np.array(data.title)
    write = np.savez_compressed if compress else np.savez
    with atomic_path(path) as temporary:
        write(temporary, **arrays)


def _column(labels: Labels) -> NDArray[Any]:
    """Return labels (N,) as (N, 1), in one byte where that is enough, as MedMNIST has them."""
    wide = labels.max() > np.iinfo(np.uint8).max
    return labels.astype(np.uint16 if wide else np.uint8)[:, np.newaxis]


def _read_or_draw(
    counts: Mapping[str, int], size: int, seed: int, generator: str
) -> Mapping[str, Split]:
    if sum(counts.values()) * len(BLOODMNIST_CLASSES) <= _CACHE_ABOVE:
        return _draw(counts, size, seed)
    key = "-".join(str(v) for v in (*counts.values(), size, seed, generator))
    try:
        path = cache_folder() / f"synthetic-{key}.npz"
    except ConfigError as error:
        say(f"{error}; the set is drawn, and not kept")
        return _draw(counts, size, seed)
    if path.is_file():
        try:
            return load_npz(path).splits
        except DataError:
            say(f"{path} is damaged and will be drawn again")
    splits = _draw(counts, size, seed)
    _keep(path, splits)
    return splits


def _draw(counts: Mapping[str, int], size: int, seed: int) -> Mapping[str, Split]:
    try:
        from bloodedge.data.synthetic import synthesize
    except ImportError as error:
        raise ConfigError(
            f"drawing synthetic cells needs OpenCV ({error})",
            fix="pip install opencv-python-headless, or give --data an .npz file",
        ) from error
    total = sum(counts.values()) * len(BLOODMNIST_CLASSES)
    if total > _CACHE_ABOVE:
        say(f"drawing {total} synthetic images (some 3 ms each)")
    splits = {}
    for stream, name in enumerate(SPLITS):
        # Three seeds of its own for every seed: no split of any set repeats another's images.
        images, labels = synthesize(
            [counts[name]] * len(BLOODMNIST_CLASSES), size, len(SPLITS) * seed + stream
        )
        splits[name] = Split(images, labels.reshape(-1).astype(np.int64))
    return splits


def _keep(path: Path, splits: Mapping[str, Split]) -> None:
    """Keep a drawn set for the next time; that it cannot be kept is no reason to fail."""
    data = Dataset("synthetic", "synthetic", "synthetic", BLOODMNIST_CLASSES, splits, {})
    try:
        write_npz(path, data, compress=False)
    except (BloodedgeError, OSError) as error:
        say(f"the synthetic set will be drawn again next time: {error}")


def _generator_version() -> str:
    """Return 12 digits that change with the drawing code or the libraries that draw."""
    digest = hashlib.sha256(np.__version__.encode())
    for module in ("synthetic.py", "morphology.py"):
        digest.update(Path(__file__).with_name(module).read_bytes())
    try:
        import cv2
    except ImportError:
        pass  # a set drawn elsewhere cannot be trusted to be the same; `_draw` says what is missing
    else:
        digest.update(cv2.__version__.encode())
    return digest.hexdigest()[:12]
