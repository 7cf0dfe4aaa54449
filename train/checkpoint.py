"""Checkpoints of an unfinished fit: weights, optimizer and history in one plain .npz."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.npz import read_arrays
from bloodedge.errors import RunError
from bloodedge.files import atomic_path

_LAST = ".checkpoint.npz"
_BEST = ".best.npz"
# No part of a finished run.
FILES = (_LAST, _BEST)


@dataclass
class Progress:
    """How far a fit has come.

    Attributes:
        epoch: epochs completed.
        history: one row of figures per completed epoch.
        best_epoch: the epoch (from 1) whose weights are kept, 0 before the first.
        best_score: the val figures of that epoch, compared as `(accuracy, -loss)`.
        seconds: work so far, over all sessions.
        resumed: how often the fit was continued.
        settings: what must be the same when the fit is continued.
    """

    settings: dict[str, Any]
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: tuple[float, float] = (-1.0, 0.0)
    seconds: float = 0.0
    resumed: int = 0


def save(folder: Path, model: Any, optimizer: Any, progress: Progress) -> None:
    """Write the checkpoint whole or not at all."""
    arrays = {f"w{i:04d}": np.asarray(w) for i, w in enumerate(model.get_weights())}
    for i, variable in enumerate(optimizer.variables):
        arrays[f"o{i:04d}"] = _to_numpy(variable)
    for i, variable in enumerate(_dropout_seeds(model)):
        arrays[f"s{i:04d}"] = _to_numpy(variable)
    state = np.frombuffer(json.dumps(asdict(progress)).encode(), dtype=np.uint8)
    with atomic_path(folder / _LAST) as path:
        np.savez(path, state=state, **arrays)  # type: ignore[arg-type]


def load(folder: Path, model: Any, optimizer: Any, settings: dict[str, Any]) -> Progress:
    """Restore a checkpoint into a model and its optimizer; without one, return a fresh `Progress`.

    Raises:
        RunError: the settings differ from those the fit was started with.
    """
    if not (folder / _LAST).exists():
        return Progress(settings)
    arrays = read_arrays(folder / _LAST)
    state = json.loads(arrays.pop("state").tobytes())
    changed = [k for k, v in state["settings"].items() if v != json.loads(json.dumps(settings))[k]]
    if changed:
        raise RunError(
            f"the interrupted run was started with another {', '.join(changed)}",
            fix="repeat the first command with --resume, or start over with --force",
        )
    model.set_weights([arrays[k] for k in sorted(arrays) if k[0] == "w"])
    optimizer.build(model.trainable_variables)
    for group, variables in (("o", optimizer.variables), ("s", _dropout_seeds(model))):
        values = [arrays[k] for k in sorted(arrays) if k[0] == group]
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    progress = Progress(**state)
    progress.best_score = (progress.best_score[0], progress.best_score[1])
    progress.resumed += 1
    return progress


def save_best(folder: Path, weights: list[NDArray[Any]]) -> None:
    """Keep the best weights so far."""
    with atomic_path(folder / _BEST) as path:
        np.savez(path, **{f"w{i:04d}": w for i, w in enumerate(weights)})  # type: ignore[arg-type]


def load_best(folder: Path) -> list[NDArray[Any]]:
    """Return the best weights."""
    arrays = read_arrays(folder / _BEST)
    return [arrays[k] for k in sorted(arrays)]


def _dropout_seeds(model: Any) -> list[Any]:
    """Return the states of the random layers, which are variables but no weights."""
    return [v for v in model.non_trainable_variables if v.path.endswith("seed_generator_state")]


def _to_numpy(variable: Any) -> NDArray[Any]:
    import keras

    value: NDArray[Any] = keras.ops.convert_to_numpy(variable)
    return value
