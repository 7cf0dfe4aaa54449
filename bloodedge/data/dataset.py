"""What every data source yields: three splits of uint8 images, labels, names, a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.errors import DataError

SPLITS = ("train", "val", "test")
MAX_CLASSES = 1000
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One split: `images` (N, S, S, 3) uint8 RGB and `labels` (N,) class indices."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Three splits and where they come from.

    Attributes:
        name: short name for manifests and figures.
        origin: `official`, `npz`, `folder` or `synthetic`.
        title: one line for people, which says so when the data is synthetic or re-split.
        class_names: in the order of the labels.
        splits: `train`, `val` and `test`.
        details: what else a manifest should record, such as the seed of a split.
    """

    name: str
    origin: str
    title: str
    class_names: tuple[str, ...]
    splits: Mapping[str, Split]
    details: Mapping[str, Any]

    def __getitem__(self, split: str) -> Split:
        try:
            return self.splits[split]
        except KeyError:
            raise DataError(f"no split {split!r}", expected=" or ".join(SPLITS)) from None

    @property
    def size(self) -> int:
        """Height and width of the images, in pixels."""
        return int(self.splits["train"].images.shape[1])

    @property
    def synthetic(self) -> bool:
        """Whether the images are drawn, not photographed."""
        return self.origin == "synthetic"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every split's images and labels, whatever file they came in."""
        return fingerprint(self.splits)

    def describe(self) -> dict[str, Any]:
        """Return the entry for a manifest."""
        return {
            "name": self.name,
            "origin": self.origin,
            "title": self.title,
            "synthetic": self.synthetic,
            "fingerprint": self.fingerprint,
            "size": self.size,
            "images": {name: len(split) for name, split in self.splits.items()},
            "class_names": list(self.class_names),
            **self.details,
        }


def images_licence(described: Mapping[str, Any]) -> str:
    """Return under which licence images are that `Dataset.describe` tells of."""
    if described.get("licence"):
        return str(described["licence"])
    if described["synthetic"]:
        return "nobody's, they are drawn"
    return "as their source says; not recorded in the data file"


def fingerprint(splits: Mapping[str, Split]) -> str:
    """Return the SHA-256 over shapes and contents of all splits, in a fixed order."""
    digest = hashlib.sha256()
    for name in SPLITS:
        split = splits[name]
        labels = np.ascontiguousarray(split.labels, dtype="<i8")
        digest.update(f"{name}{split.images.shape}{labels.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(labels.data)
    return digest.hexdigest()


def check_split(name: str, split: Split, classes: int, source: str) -> None:
    """Check one split's shapes, types and label range.

    Raises:
        DataError: naming the source, the split and what is wrong.
    """
    images, labels = split.images, split.labels
    where = f"{source}: {name}"
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError(
            f"{where}_images has shape {images.shape} and type {images.dtype}",
            expected="uint8 (N, S, S, 3) RGB",
        )
    if images.shape[1] != images.shape[2] or not 8 <= images.shape[1] <= 1024:
        raise DataError(
            f"{where}_images are {images.shape[1]}x{images.shape[2]} pixels",
            expected="square images of 8 to 1024 pixels a side",
        )
    if len(images) != len(labels) or len(images) == 0:
        raise DataError(f"{where} has {len(images)} images and {len(labels)} labels")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{where}_labels range from {low} to {high}", expected=f"0 to {classes - 1}"
        )


def class_counts(labels: Labels, classes: int) -> list[int]:
    """Return how many images each class has."""
    return [int(count) for count in np.bincount(labels, minlength=classes)]
