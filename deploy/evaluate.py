"""`bloodedge evaluate`: a model on one split of a data set, as a run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import say
from bloodedge.data.dataset import SPLITS, Dataset
from bloodedge.data.names import check_names, check_shapes
from bloodedge.deploy.predict import LoadedModel, embedded, open_model
from bloodedge.errors import ConfigError
from bloodedge.figures import can_draw, confusion_figure
from bloodedge.files import gzip_size
from bloodedge.hardware import usable_cores
from bloodedge.metrics import classification_metrics
from bloodedge.references import ModelReference, find_model
from bloodedge.runs import Manifest, Run, RunFolder, Stopwatch, check_name, open_run, usual_name

KIND = "evaluate"


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate and where to put it.

    Attributes:
        model: the model, or the name or path of one.
        split: the images to use; `test` is for the final figures.
        name: the run's name; by default the model's and the split's.
        force: replace a run of that name.
        workers: TFLite interpreters that share the images; by default one per core.

    Raises:
        ConfigError: an unknown split, or fewer than one worker.
        RunError: a name that cannot be a run's.
    """

    model: ModelReference | str
    split: str = "test"
    name: str | None = None
    force: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be evaluated, before anything is loaded."""
        if self.split not in SPLITS:
            raise ConfigError(f"--split {self.split!r}", expected=", ".join(SPLITS))
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers {self.workers}", expected="at least 1")
        if self.name is not None:
            check_name(self.name)

    def resolved(self) -> tuple[ModelReference, str]:
        """Return the model and the run's name.

        Raises:
            ModelError: no model, or several, are meant.
        """
        model = find_model(self.model) if isinstance(self.model, str) else self.model
        return model, self.name or check_name(usual_name(f"{model.name}-{self.split}"))


def told_apart(models: Sequence[ModelReference]) -> list[ModelReference]:
    """Return the models; those that would share a run get their folder's name in front of theirs.

    Raises:
        ConfigError: two share one even so.
    """
    plain = [usual_name(model.name) for model in models]
    apart: dict[str, ModelReference] = {}
    for model, name in zip(models, plain, strict=True):
        folder = f"{model.path.resolve().parent.name}-" if plain.count(name) > 1 else ""
        told = replace(model, name=folder + model.name)
        if usual_name(told.name) in apart:
            raise ConfigError(
                f"two models are called {told.name}",
                fix="evaluate them one by one, each with a --name",
            )
        apart[usual_name(told.name)] = told
    return list(apart.values())


def evaluate(config: EvaluateConfig, data: Dataset) -> Run:
    """Evaluate a model on a split and write the run.

    The folder holds `predictions.npz` (`probabilities` (N, C) float32 and `labels` (N,) uint16, in
    the split's order), `confusion_<split>.png` and the manifest with every figure, computed from
    the probabilities that were written.

    Raises:
        ModelError: the model is damaged, or does not fit the data's classes or image size.
        RunError: the run exists.
    """
    reference, name = config.resolved()
    watch = Stopwatch()
    model = open_model(reference)
    check_fit(model, data)
    with open_run(name, force=config.force, reads=(reference.sha256,)) as run:
        images = data[config.split].images
        say(f"{name}: {len(images):,} {config.split} images of {data.title}")
        workers = _workers(model, config)
        start = time.perf_counter()
        p = model.probabilities(images, workers)
        rate = len(images) / (time.perf_counter() - start)
        speed = {"images_per_s": round(rate, 1), "workers": workers}
        metrics = _write(run, config.split, data, p) | speed
        return run.commit(_manifest(run, config, model, data, metrics, watch))


def _workers(model: LoadedModel, config: EvaluateConfig) -> int:
    """Keras spreads one batch over the cores by itself; TFLite needs an interpreter for each."""
    if model.keras is not None:
        return 1
    return config.workers or usable_cores()


def check_fit(model: LoadedModel, data: Dataset) -> None:
    """Check that a model's answers mean the data's classes.

    Raises:
        ModelError: the image size, the number of classes, or their order differs.
    """
    path = model.reference.path
    check_shapes(str(path), model.size, model.classes, data)
    check_names(path, model.reference.class_names or embedded(model.reference), data)


def _write(run: RunFolder, split: str, data: Dataset, p: NDArray[np.float32]) -> dict[str, Any]:
    """Write the predictions, and where it can be drawn the figure, and return the metrics."""
    labels = data[split].labels
    with (run.path / "predictions.npz").open("wb") as file:
        np.savez_compressed(file, probabilities=p, labels=labels.astype(np.uint16))
    metrics = classification_metrics(labels, p)
    if can_draw():
        note = "synthetic data, " if data.synthetic else ""
        title = f"{run.name}: {note}{split}, {100 * metrics['accuracy']:.2f} %"
        matrix = np.asarray(metrics["confusion"])
        confusion_figure(matrix, data.class_names, title, run.path / f"confusion_{split}.png")
    else:
        say("no figure: matplotlib is not installed")
    return metrics


def _manifest(
    run: RunFolder,
    config: EvaluateConfig,
    model: LoadedModel,
    data: Dataset,
    metrics: dict[str, Any],
    watch: Stopwatch,
) -> Manifest:
    reference = model.reference
    file = file_entry(reference)
    return Manifest(
        kind=KIND,
        name=run.name,
        config={"model": reference.name, "split": config.split, "workers": config.workers},
        data=data.describe(),
        parents={"model": file["sha256"]},
        model={**_inherited(reference), "class_names": list(data.class_names), "file": file},
        metrics={config.split: metrics},
        seed=0,
        duration_s=watch.seconds(),
    )


def file_entry(reference: ModelReference) -> dict[str, Any]:
    """Return a model file's name, sizes in bytes and SHA-256, by which a report joins runs."""
    path = reference.path
    return {
        "name": path.name,
        "bytes": path.stat().st_size,
        "gzip_bytes": gzip_size(path),
        "sha256": reference.sha256,
    }


def _inherited(reference: ModelReference) -> dict[str, Any]:
    """Return what the model's own manifest says of it, so that a report needs only this run."""
    manifest = reference.manifest
    entry = manifest.get("model", {})
    kept = {key: entry[key] for key in ("config", "parameters") if key in entry}
    if made := {key: manifest[key] for key in ("kind", "name") if key in manifest}:
        kept["run"] = made
    variants = manifest.get("metrics", {}).get("variants")
    for variant, inside in variants.items() if isinstance(variants, dict) else ():
        if isinstance(inside, dict) and inside.get("file") == reference.path.name:
            kept["variant"] = variant
    return {**kept, "reference": reference.name}
