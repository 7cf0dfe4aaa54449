"""`bloodedge train`: a reference model from a data set, as a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from bloodedge.console import say
from bloodedge.data.dataset import Dataset
from bloodedge.data.names import check_names
from bloodedge.errors import ModelError
from bloodedge.figures import can_draw, confusion_figure, learning_curves
from bloodedge.hardware import describe_devices, describe_keras_hardware
from bloodedge.metrics import classification_metrics, softmax
from bloodedge.references import ModelReference, find_keras
from bloodedge.runs import Manifest, Run, RunFolder, check_name, open_resumable
from bloodedge.train import checkpoint
from bloodedge.train.architecture import Architecture, Registered
from bloodedge.train.config import FitConfig
from bloodedge.train.device import conditions, precision, resolve_precision
from bloodedge.train.finished import STARTED
from bloodedge.train.loop import FitResult, fit, predict_logits
from bloodedge.train.modelio import save_model
from bloodedge.train.registry import ModelConfig, spec
from bloodedge.train.restore import restore
from bloodedge.train.targets import HardLabels, Targets

MODEL_FILE = "model.keras"


@dataclass(frozen=True)
class TrainConfig:
    """What `bloodedge train` trains and where it puts it.

    Attributes:
        model: a registered model.
        fit: how long and how.
        name: the run to write.
        width: multiplies its channels.
        init: a run, file or zoo model of the same architecture whose weights to start from.
        force: replace a run of that name.
        resume: continue an interrupted run.
        attention: `none`, `se` or `cbam` in place of the model's own design.

    Raises:
        ConfigError: progressive resizing for a model tied to one image size, or below its
            smallest, or a width or attention that the model does not take.
        ModelError: an unknown model.
        RunError: a name that no run can have.
    """

    model: str
    fit: FitConfig
    name: str
    width: float = 1.0
    init: str | None = None
    force: bool = False
    resume: bool = False
    attention: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        entry = spec(self.model)
        entry.check(self.width, self.attention)
        entry.check_phases(self.fit.smaller_sizes)


@dataclass(frozen=True)
class Fitted:
    """A fit to be turned into a run: shared by training, distillation and pruning."""

    kind: str
    targets: Targets
    model: Architecture
    fit: FitConfig
    config: dict[str, Any]
    parents: dict[str, str] = field(default_factory=dict)
    init: ModelReference | None = None
    search_from: int = 0


def train(config: TrainConfig, data: Dataset) -> Run:
    """Train a registered model and write its run folder.

    The folder holds `model.keras`, `history.csv`, figures and the manifest; val figures are those
    of the epoch that val chose.

    Raises:
        RunError: the run exists, or cannot be resumed.
        ModelError: the model to start from is missing, damaged, or has another architecture or
            the data's classes in other places.
        ConfigError: the model does not take images of this size or so many classes, or as `fit`.
        TrainingError: the loss became infinite or NaN.
        BloodedgeError: the run cannot be written.
    """
    classes = len(data.class_names)
    model = Registered(
        ModelConfig(config.model, classes, data.size, config.width, config.attention)
    )
    labels = data["train"].labels
    targets = HardLabels(labels, classes, config.fit.label_smoothing)
    init = find_keras(config.init) if config.init else None
    parents = {"init": init.sha256} if init else {}
    what = Fitted("train", targets, model, config.fit, asdict(config), parents, init)
    with open_resumable(config, reads=parents.values()) as run:
        return fit_run(what, data, run)


def fit_run(what: Fitted, data: Dataset, run: RunFolder) -> Run:
    """Fit `what.model` towards `what.targets` inside an open run folder, and commit it.

    Raises:
        ModelError: the model to start from is damaged, or has another architecture or the data's
            classes in other places.
        BloodedgeError: as `bloodedge.train.loop.fit`.
    """
    import keras

    half = resolve_precision(what.fit.precision)
    what = replace(what, config={**what.config, **conditions(), "precision": half})
    keras.utils.set_random_seed(what.fit.seed)
    with precision(half):
        model = what.model.build()
    if what.init:
        _start_from(model, what.init, data)
    say(
        f"{run.name}: {what.model.name}, {model.count_params():,} parameters, "
        f"{len(data['train']):,} images of {data.title}, "
        f"on {keras.backend.backend()}, {_devices()}, in {half}"
    )
    result = fit(
        model,
        data["train"],
        data["val"],
        what.targets,
        what.fit,
        run.path,
        lasting_settings(what.fit, what.config, what.parents, data),
        search_from=what.search_from,
    )
    return commit_run(what, what.model.fixed(model), result, data, run)


def commit_run(what: Fitted, model: Any, result: FitResult, data: Dataset, run: RunFolder) -> Run:
    """Save a model that has been fitted, evaluate it on val, and commit its run.

    Args:
        what: how it was made.
        model: as it is kept, in float32 and with a static image size.
        result: what the fit yielded.
        data: val is used.
        run: the open run folder.
    """
    save_model(model, run.path / MODEL_FILE)
    metrics = val_figures(model, data, run, result)
    return run.commit(
        Manifest(
            kind=what.kind,
            name=run.name,
            config=what.config,
            data=data.describe(),
            parents=what.parents,
            model=what.model.entry(model, data.class_names),
            metrics=metrics,
            seed=what.fit.seed,
            duration_s=result.seconds,
            resumed=result.resumed,
            # Of the last session: another one may have had others.
            hardware=describe_keras_hardware(),
        ),
        scratch=checkpoint.FILES,
    )


def _devices() -> str:
    """Return what Keras computes on, in words: `cpu`, `4 x NVIDIA H200`."""
    found = describe_devices()
    return found["device"] if found["devices"] == 1 else f"{found['devices']} x {found['device']}"


def _start_from(model: Any, reference: ModelReference, data: Dataset) -> None:
    """Give a model the weights of another of its shape.

    Raises:
        ModelError: it is damaged, or of another shape, or has the data's classes in other places.
    """
    weights = restore(reference).get_weights()
    if [w.shape for w in weights] != [w.shape for w in model.get_weights()]:
        raise ModelError(
            f"the weights of {reference.name} do not fit {model.name}",
            expected="the same model, width and number of classes",
        )
    check_names(reference.path, reference.class_names, data)
    model.set_weights(weights)


def lasting_settings(
    fit: FitConfig, config: Mapping[str, Any], parents: Mapping[str, str], data: Dataset
) -> dict[str, Any]:
    """Return what must be the same when a fit is continued: everything that shapes the result.

    Args:
        fit: how long and how.
        config: the stage's settings and what it runs on, as its manifest has them.
        parents: SHA-256 of each model the run is made from, by role.
        data: what it learns from.
    """
    others = {key: value for key, value in config.items() if key not in STARTED | {"fit"}}
    return {**asdict(fit), **others, **parents, "data": data.fingerprint}


def val_figures(model: Any, data: Dataset, run: RunFolder, result: FitResult) -> dict[str, Any]:
    """Evaluate on val, draw the figures, and return the manifest's metrics."""
    val = data["val"]
    metrics = classification_metrics(val.labels, softmax(predict_logits(model, val.images)))
    if can_draw():
        note = f"{run.name} - {data.title}"
        if result.history:
            learning_curves(result.history, note, run.path / "learning_curves.png")
        matrix = np.asarray(metrics["confusion"])
        title = f"{note}, val, {100 * metrics['accuracy']:.2f} %"
        confusion_figure(matrix, data.class_names, title, run.path / "confusion_val.png")
    else:
        say("no figures: matplotlib is not installed; `bloodedge report` draws them later")
    return {"val": metrics, "best_epoch": result.best_epoch}
