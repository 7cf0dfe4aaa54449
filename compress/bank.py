"""A teacher's logits over the eight flips and turns of every training image, computed once.

A teacher's passes dominate distillation on a CPU. The eight views are a finite set, so the
logits can be computed once, stored in half precision and reused by every student.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.data.npz import read_arrays
from bloodedge.errors import DataError
from bloodedge.files import atomic_path
from bloodedge.runs import runs_root
from bloodedge.train.augment import VIEWS, view_of
from bloodedge.train.loop import predict_logits

Bank = NDArray[np.float16]


@dataclass(frozen=True)
class BankKey:
    """What a bank was computed from.

    Attributes:
        teacher: SHA-256 of the teacher's file.
        data: the data set's fingerprint.
        views: how many of the eight views it covers.
    """

    teacher: str
    data: str
    views: int

    @property
    def path(self) -> Path:
        """The cache file of this bank, below the runs folder."""
        text = f"{self.teacher}:{self.data}:{self.views}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return runs_root() / ".teacher-logits" / f"{digest[:16]}.npz"


def teacher_logits(key: BankKey, teacher: Any, data: Dataset) -> Bank:
    """Return the `(N, views, C)` logits of the teacher on train, computing what is not cached.

    Each view is stored when it is complete, so an interrupted computation continues there.

    Args:
        key: names the cache file.
        teacher: a Keras model, logits out.
        data: its train split is used.

    Raises:
        DataError: the cached file is damaged.
    """
    images, classes = data["train"].images, len(data.class_names)
    done = _read(key.path) if key.path.exists() else []
    _check(done, (len(images), classes), key)
    if len(done) == key.views:
        say(f"teacher logits over {key.views} views: reused from {key.path}")
    for view in range(len(done), key.views):
        label = f"teacher logits, view {view + 1}/{key.views}"
        turned = np.ascontiguousarray(view_of(images, view))
        done.append(predict_logits(teacher, turned, label=label).astype(np.float16))
        _write(key.path, done)
        say(f"{label}: done")
    return np.stack(done, axis=1)


def _read(path: Path) -> list[Bank]:
    arrays = read_arrays(path)
    return [arrays[name] for name in sorted(arrays)]


def _write(path: Path, views: list[Bank]) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, **{f"view{i}": v for i, v in enumerate(views)})  # type: ignore[arg-type]


def _check(views: list[Bank], shape: tuple[int, int], key: BankKey) -> None:
    if len(views) > min(key.views, VIEWS) or any(v.shape != shape for v in views):
        raise DataError(f"the teacher logits in {key.path} do not fit", fix="delete the file")
