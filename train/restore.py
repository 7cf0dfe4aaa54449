"""Any reference to a trained model as a Keras model, ready to predict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.dataset import Dataset
from bloodedge.data.names import check_names, check_shapes
from bloodedge.data.npz import read_arrays
from bloodedge.errors import ModelError
from bloodedge.files import atomic_path
from bloodedge.references import (
    KERAS_SUFFIX,
    WEIGHTS_SUFFIX,
    ModelReference,
    no_keras,
    zoo_folders,
)
from bloodedge.runs import runs_root
from bloodedge.train.heads import with_logits, with_logs
from bloodedge.train.modelio import entry_config, load_model, probe_model
from bloodedge.train.plain import plain
from bloodedge.train.registry import build


def restore(reference: ModelReference) -> Any:
    """Return the Keras model of a `.keras` file or of half-precision weights, which gives logits.

    It is one flat graph that computes in float32, where it can be made one: see `plain`.

    Raises:
        ModelError: the file is damaged, is no Keras model, ends in a sigmoid, computes in half
            precision and cannot be made anew in single, or has weights that are not finite. One
            from elsewhere is first loaded in a child process.
    """
    model = _load(reference)
    _refuse_not_finite(model, reference.path)
    return model


def _load(reference: ModelReference) -> Any:
    if reference.path.name.endswith(KERAS_SUFFIX):
        ours = _is_ours(reference.path)
        if not ours:
            probe_model(reference.path)
        model = plain(load_model(reference.path), reference.path)
        model = with_logits(model, reference.path)
        return model if ours else with_logs(model, reference.path)
    if reference.path.name.endswith(WEIGHTS_SUFFIX):
        return _from_half_weights(reference.path, reference.manifest)
    raise no_keras(str(reference.path), reference)


def _is_ours(path: Path) -> bool:
    """Whether a file lies where this program writes its results."""
    folders = (runs_root(), *zoo_folders())
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in folders)


def _refuse_not_finite(model: Any, path: Path) -> None:
    """Refuse a model that has NaN among its weights: what is made of it would look plausible."""
    for variable in model.weights:
        if not np.isfinite(variable.numpy()).all():
            raise ModelError(
                f"{path} has weights that are not finite, first in {variable.path}",
                expected="numbers, no NaN or infinity",
                fix="train the model again, or take an earlier copy",
            )


def restore_for(reference: ModelReference, data: Dataset, role: str) -> Any:
    """Return the Keras model of a reference if it can be used with a data set.

    Args:
        reference: what to load.
        data: whose images and classes it must take.
        role: what it is to the user, such as `teacher`.

    Raises:
        ModelError: the file is damaged, or the model has other classes or images than the data.
    """
    model = restore(reference)
    size, classes = model.input_shape[1], model.output_shape[-1]
    check_shapes(f"the {role} {reference.name}", size, classes, data)
    check_names(reference.path, reference.class_names, data)
    return model


def save_half_weights(model: Any, path: Path) -> None:
    """Write a model's weights as float16, in the order of `get_weights`."""
    arrays = {f"w{i:04d}": w.astype(np.float16) for i, w in enumerate(model.get_weights())}
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _from_half_weights(path: Path, manifest: Mapping[str, Any]) -> Any:
    config = entry_config(manifest.get("model", {}))
    model = build(config, size=config.size)
    arrays = read_arrays(path)
    try:
        weights: list[NDArray[Any]] = [arrays[k].astype(np.float32) for k in sorted(arrays)]
        model.set_weights(weights)
    except ValueError as error:
        raise ModelError(f"{path} does not fit {config.name}: {error}") from error
    return model
