"""A teacher's answers over the eight flips and turns of every training image, computed once.

A teacher's passes dominate distillation on a CPU. The eight views are a finite set, so the
answers can be computed once, stored in half precision and reused by every student.
`python -m bloodedge.benchmarks.distill_speed` measures what that saves.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
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
        what: `logits`, or `features` for what the last dense layer looks at.
        precision: that the teacher computed in, `float32` or `bfloat16`.
    """

    teacher: str
    data: str
    views: int
    what: str = "logits"
    precision: str = "float32"

    @property
    def path(self) -> Path:
        """The cache file of this bank, below the runs folder."""
        text = f"{self.teacher}:{self.data}:{self.views}"
        if self.what != "logits":
            text += f":{self.what}"
        if self.precision != "float32":
            text += f":{self.precision}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return runs_root() / ".teacher-logits" / f"{digest[:16]}.npz"


def teacher_answers(key: BankKey, teacher: Any, data: Dataset) -> Bank:
    """Return the `(N, views, K)` answers of the teacher on train, computing what is not cached.

    Each view is stored when it is complete, so an interrupted computation continues there.

    Args:
        key: names the cache file.
        teacher: a Keras model with `(B, K)` outputs, such as logits.
        data: its train split is used.

    Raises:
        DataError: the cached file is damaged.
    """
    images, outputs = data["train"].images, int(teacher.output_shape[-1])
    path, done = _stored(key, outputs)
    if len(done) > min(key.views, VIEWS) or any(v.shape != (len(images), outputs) for v in done):
        raise DataError(f"the teacher's {key.what} in {path} do not fit", fix="delete the file")
    if len(done) == key.views:
        say(f"teacher {key.what} over {key.views} views: reused from {path}")
    for view in range(len(done), key.views):
        label = f"teacher {key.what}, view {view + 1}/{key.views}"
        turned = np.ascontiguousarray(view_of(images, view))
        done.append(predict_logits(teacher, turned, label=label).astype(np.float16))
        _write(key.path, {f"view{i}": v for i, v in enumerate(done)})
        say(f"{label}: done")
    return np.stack(done, axis=1)


@dataclass(frozen=True)
class BankFile:
    """Teacher logits that are kept, and used without the teacher (`--teacher-logits`).

    Attributes:
        logits: `(N, V, C)` float16.
        teachers: the names of the models whose mean they are.
        data: the fingerprint of the data set they belong to.
    """

    logits: Bank
    teachers: tuple[str, ...]
    data: str


def check_place(path: Path, teachers: tuple[str, ...], data: str, *, force: bool = False) -> None:
    """Check that teacher logits may be written to a path, before they are computed.

    Args:
        path: of the file to be.
        teachers: the names of the models that answer.
        data: the fingerprint of the data set.
        force: whether other logits there may be replaced.

    Raises:
        DataError: there is another file, or one with logits of other teachers or data.
    """
    if not path.exists():
        return
    arrays = _read_kept(path)
    if force:
        return
    held = tuple(str(t) for t in arrays["teachers"].ravel())
    if held != teachers:
        raise _taken(path, f"of {', '.join(held)}, not of {', '.join(teachers)}")
    if str(arrays["data"]) != data:
        raise _taken(path, "of other images")


def write_bank(bank: BankFile, path: Path, *, force: bool = False) -> None:
    """Write teacher logits with what they belong to: an .npz of plain arrays.

    Args:
        bank: the logits.
        path: of the file.
        force: whether other logits there are replaced.

    Raises:
        DataError: there is a file with another content.
    """
    check_place(path, bank.teachers, bank.data, force=force)
    if path.exists() and not force:
        held, wanted = _read_views(path), np.moveaxis(bank.logits, 1, 0)
        if len(held) != len(wanted) or not all(map(np.array_equal, held, wanted)):
            raise _taken(path, "of another teacher of that name, --precision or --teacher-views")
        return
    arrays = {f"view{i}": bank.logits[:, i] for i in range(bank.logits.shape[1])}
    about = {"teachers": np.array(bank.teachers), "data": np.array(bank.data)}
    _write(path, {**arrays, **about})


def read_bank(path: Path, data: Dataset) -> BankFile:
    """Read teacher logits and check that they belong to the data.

    Raises:
        DataError: the file is missing, damaged, or belongs to other data.
    """
    arrays = read_arrays(path)
    teachers, belongs = arrays.get("teachers"), arrays.get("data")
    if teachers is None or belongs is None or teachers.dtype.kind != "U":
        raise DataError(
            f"{path} holds no teacher logits", expected="a file that --teacher-logits has written"
        )
    if str(belongs) != data.fingerprint:
        raise DataError(
            f"the teacher logits in {path} belong to other images than {data.title}",
            fix="name the data they were made from with --data, or write them again",
        )
    shape = (len(data["train"]), len(data.class_names))
    views = _views(arrays)
    if len(views) not in (1, 2, 4, VIEWS) or any(v.shape != shape for v in views):
        raise DataError(f"the teacher logits in {path} do not fit", expected=f"{shape} a view")
    logits = np.stack(views, axis=1)
    if not np.isfinite(logits).all():
        raise DataError(f"the teacher logits in {path} are not all finite", fix="write them again")
    return BankFile(logits, tuple(str(t) for t in teachers.ravel()), data.fingerprint)


def _read_kept(path: Path) -> dict[str, NDArray[Any]]:
    arrays = read_arrays(path)
    if "teachers" not in arrays or "data" not in arrays:
        raise DataError(
            f"{path} exists and holds no teacher logits", fix="choose another --teacher-logits"
        )
    return arrays


def _taken(path: Path, whose: str) -> DataError:
    return DataError(
        f"{path} holds teacher logits {whose}",
        fix="choose another --teacher-logits, or add --force",
    )


def _stored(key: BankKey, outputs: int) -> tuple[Path, list[Bank]]:
    """Return the file with a bank's views, and the views: its own, or one of features.

    Features are stored behind the logits of the same views, so that the teacher need not run
    again for the logits alone.
    """
    features = replace(key, what="features").path
    if key.what == "logits" and features.exists() and not key.path.exists():
        return features, [np.ascontiguousarray(v[..., :outputs]) for v in _read_views(features)]
    return key.path, _read_views(key.path) if key.path.exists() else []


def _read_views(path: Path) -> list[Bank]:
    return _views(read_arrays(path))


def _views(arrays: dict[str, NDArray[Any]]) -> list[Bank]:
    names = sorted(name for name in arrays if name.startswith("view"))
    if any(arrays[name].dtype != np.float16 for name in names):
        return []
    return [arrays[name] for name in names]


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    # By a handle, as NumPy would add .npz to a name that ends otherwise.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
