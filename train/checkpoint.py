"""Checkpoints of an unfinished fit: weights, optimizer, best weights and history in one .npz.

Two generations are kept. A new one is written aside and renamed; where the newest cannot be read,
the one before is continued, and because every batch depends on seed, epoch and step alone, either
ends in the same weights.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge import hosts
from bloodedge.console import say
from bloodedge.data.npz import read_arrays
from bloodedge.errors import DataError, RunError
from bloodedge.files import atomic_path
from bloodedge.train.config import switched_on

_LAST = ".checkpoint.npz"
_PREVIOUS = ".checkpoint-previous.npz"
# No part of a finished run.
FILES = (_LAST, _PREVIOUS)
# What every fit has; where an earlier version did not write it, it is not known.
_ALWAYS = frozenset({"backend"})
# Writing may take this share of the time: a large net with epochs of seconds saves less often.
_WRITING_SHARE = 0.05


@dataclass
class Progress:
    """How far a fit has come.

    Attributes:
        settings: what must be the same when the fit is continued.
        epoch: epochs completed.
        history: one row of figures per completed epoch.
        best_epoch: the epoch (from 1) whose weights are kept, 0 before the first.
        best_score: the val figures of that epoch, compared as `(accuracy, -loss)`.
        seconds: work so far, over all sessions.
        resumed: how often the fit was continued.
        best_weights: the weights of `best_epoch`.
    """

    settings: dict[str, Any]
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: tuple[float, float] = (-1.0, 0.0)
    seconds: float = 0.0
    resumed: int = 0
    best_weights: list[NDArray[Any]] = field(default_factory=list)


class NotContinuedError(RunError):
    """An interrupted run that cannot be continued as it is asked for.

    Attributes:
        why: what is the matter; some commands that continue it know another way out.
    """

    def __init__(self, why: str, *, fix: str) -> None:
        super().__init__(why, fix=fix)
        self.why = why


class Checkpoints:
    """The checkpoints of one fit.

    Args:
        folder: where they are.
        model: the Keras model that is trained.
        optimizer: its optimizer.
    """

    def __init__(self, folder: Path, model: Any, optimizer: Any) -> None:
        self._folder = folder
        self._model = model
        self._optimizer = optimizer
        self._saved_at = 0.0
        self._took = 0.0

    def save_if_due(self, progress: Progress) -> None:
        """Write a checkpoint, unless that would cost more than a twentieth of the time.

        Of several hosts the first does.
        """
        if hosts.is_first() and time.monotonic() - self._saved_at > self._took / _WRITING_SHARE:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint whole or not at all; what was the newest becomes the previous."""
        started = time.monotonic()
        state = {f.name: getattr(progress, f.name) for f in fields(progress)}
        del state["best_weights"]
        arrays = {
            "state": np.frombuffer(json.dumps(state).encode(), dtype=np.uint8),
            **_numbered("w", self._model.get_weights()),
            **_numbered("b", progress.best_weights),
            **_numbered("o", [_to_numpy(v) for v in self._optimizer.variables]),
            **_numbered("s", [_to_numpy(v) for v in _random_states(self._model)]),
        }
        last = self._folder / _LAST
        with atomic_path(last) as path:
            np.savez(path, **arrays)  # type: ignore[arg-type]
            if last.exists():
                last.replace(self._folder / _PREVIOUS)
        self._saved_at = time.monotonic()
        self._took = self._saved_at - started

    def load(self, settings: dict[str, Any]) -> Progress:
        """Restore the newest checkpoint that can be read; without one, start afresh.

        See `refuse_changes` for what earlier versions did not write.

        Raises:
            NotContinuedError: the settings differ from those the fit was started with, or no
                checkpoint can be read although there are some.
            RunError: the settings differ from those on the first host.
        """
        _check_hosts(settings)
        arrays = _sent_to_all(self._newest)
        if arrays is None:
            return Progress(settings)
        state = json.loads(arrays.pop("state").tobytes())
        refuse_changes(state["settings"], settings)
        self._model.set_weights(_group(arrays, "w"))
        self._optimizer.build(self._model.trainable_variables)
        for group, variables in (
            ("o", self._optimizer.variables),
            ("s", _random_states(self._model)),
        ):
            for variable, value in zip(variables, _group(arrays, group), strict=True):
                variable.assign(value)
        # Of now: an earlier version wrote fewer.
        state["settings"] = settings
        progress = Progress(**state, best_weights=_group(arrays, "b"))
        progress.best_score = (progress.best_score[0], progress.best_score[1])
        progress.resumed += 1
        return progress

    def _newest(self) -> dict[str, NDArray[Any]] | None:
        found = [path for name in FILES if (path := self._folder / name).exists()]
        for path in found:
            try:
                return read_arrays(path)
            except DataError as error:
                say(f"a checkpoint cannot be read ({error}); trying the one before")
        if found:
            raise NotContinuedError(
                f"no checkpoint in {self._folder} can be read",
                fix="start over with --force and without --resume",
            )
        return None


def has_checkpoint(folder: Path) -> bool:
    """Whether there is a checkpoint to continue in a folder."""
    return any((folder / name).exists() for name in FILES)


def refuse_changes(before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to continue what was started with other settings.

    A setting that an earlier version did not have was off then, unless it is one of `_ALWAYS`.

    Args:
        before: the settings it was started with, as JSON has them.
        settings: those of now.

    Raises:
        NotContinuedError: they differ; it names those that do.
    """
    was, now = switched_on(before), switched_on(json.loads(json.dumps(settings)))
    changed = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
    if changed := changed - (_ALWAYS - was.keys()):
        raise NotContinuedError(
            f"the interrupted run was started with another {', '.join(sorted(changed))}",
            # With both, what replaces a finished run is continued.
            fix="repeat the first command with --resume, or start over with --force and without "
            "--resume",
        )


def _check_hosts(settings: dict[str, Any]) -> None:
    """Refuse a host that was started with other settings or data than the first."""
    mine = json.loads(json.dumps(settings))
    changed = [key for key, value in hosts.agree(mine).items() if value != mine.get(key)]
    if changed:
        raise RunError(
            f"this host was started with another {', '.join(changed)} than the first",
            fix="start the same command on the same data on every host",
        )


def _sent_to_all(
    read: Callable[[], dict[str, NDArray[Any]] | None],
) -> dict[str, NDArray[Any]] | None:
    """Return the first host's arrays on every host: there may be no folder that they share."""
    if hosts.count() == 1:
        return read()

    def content() -> bytes:
        arrays = read()
        buffer = io.BytesIO()
        if arrays is not None:
            np.savez(buffer, **arrays)  # type: ignore[arg-type]
        return buffer.getvalue()

    sent = hosts.from_first(content)
    if not sent:
        return None
    with np.load(io.BytesIO(sent), allow_pickle=False) as arrays:
        return dict(arrays)


def _numbered(letter: str, arrays: list[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{letter}{i:04d}": np.asarray(array) for i, array in enumerate(arrays)}


def _group(arrays: dict[str, NDArray[Any]], letter: str) -> list[NDArray[Any]]:
    return [arrays[name] for name in sorted(arrays) if name[0] == letter and name[1:].isdecimal()]


def _random_states(model: Any) -> list[Any]:
    """Return the states of the random layers, which are variables but no weights."""
    return [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]


def _to_numpy(variable: Any) -> NDArray[Any]:
    import keras

    value: NDArray[Any] = keras.ops.convert_to_numpy(variable)
    return value
