"""Quantization-aware training: a model fine-tuned as int8 will compute it, as a run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.fold import fold
from bloodedge.compress.preserve import PRESERVE, preserve
from bloodedge.compress.simulate import Ranges, Simulation
from bloodedge.compress.teaching import TeachingConfig, parents, refuse_features, teach
from bloodedge.console import say
from bloodedge.data.calibration import calibration_indices
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, check_range
from bloodedge.hardware import describe_keras_hardware
from bloodedge.metrics import classification_metrics, softmax
from bloodedge.references import ModelReference, find_keras
from bloodedge.runs import Manifest, Run, RunFolder, check_name, open_resumable
from bloodedge.train import checkpoint
from bloodedge.train.calibrating import as_trained
from bloodedge.train.config import FitConfig
from bloodedge.train.device import conditions
from bloodedge.train.loop import FitResult, fit, predict_logits
from bloodedge.train.modelio import save_model
from bloodedge.train.restore import restore_for
from bloodedge.train.stage import MODEL_FILE, lasting_settings, val_figures


@dataclass(frozen=True)
class QatConfig:
    """What `bloodedge quantize --mode qat` fine-tunes and where it puts it.

    Attributes:
        model: the trained parent: a run, a file or a zoo model.
        fit: how long and how; its `ema` must be 0 and its precision is float32, as averages and
            half precision would leave the int8 grids.
        name: the run to write.
        teaching: whose logits to learn as well, such as the parent's; None for labels alone.
        preserve: of `PRESERVE`: zeros and clusters of the parent that stay.
        per_class: calibration images of each class, drawn from train as for export.
        force: replace a run of that name.
        resume: continue an interrupted run.

    Raises:
        ConfigError: settings that cannot work together, or a number out of range.
        RunError: a name that no run can have.
    """

    model: str
    fit: FitConfig
    name: str
    teaching: TeachingConfig | None = None
    preserve: str = "auto"
    per_class: int = 32
    force: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.preserve not in PRESERVE:
            raise ConfigError(f"--preserve {self.preserve!r}", expected=", ".join(PRESERVE))
        check_range("--calibration-per-class", self.per_class, 1, 10_000)
        refuse_features(self.teaching)
        if self.fit.ema or self.fit.progressive or self.fit.precision == "bfloat16":
            raise ConfigError(
                "quantization-aware training takes no --ema, smaller images or bfloat16",
                fix="leave them out",
            )


def quantize(config: QatConfig, data: Dataset) -> Run:
    """Fine-tune a model with simulated int8 arithmetic and write its run folder.

    The folder holds `model.keras`, an ordinary model with batch norm folded, which
    `bloodedge export` turns into int8 that computes what was simulated. The ranges of the
    activations are taken anew from the calibration images before each validation.

    Raises:
        ModelError: the parent or teacher is missing, damaged, or does not fit the data.
        ConfigError: `preserve` names what the parent has not.
        RunError: the run exists, or cannot be resumed.
        TrainingError: the loss became infinite or NaN.
    """
    parent = find_keras(config.model)
    by_role = {"parent": parent.sha256, **parents(config.teaching)}
    with open_resumable(config, reads=by_role.values()) as run:
        import keras

        keras.utils.set_random_seed(config.fit.seed)
        model = restore_for(parent, data, "model")
        folded = fold(model)
        kept = preserve(folded, config.preserve)
        twin = Simulation(folded)
        chosen = calibration_indices(data["train"].labels, config.per_class, config.fit.seed)
        # Of the same images export will take the ranges from.
        images = as_trained(data["train"].images[chosen], config.fit.augment, config.fit.seed)
        twin.observe(images)
        _tell(config, twin, kept)
        targets = teach(config.teaching, data, config.fit)
        recorded = {**asdict(config), **conditions()}
        before = _accuracy(model, data), _accuracy(twin.net, data)
        say(f"val accuracy: parent {100 * before[0]:.2f} %, in int8 {100 * before[1]:.2f} %")
        result = fit(
            twin.net,
            data["train"],
            data["val"],
            targets,
            config.fit,
            run.path,
            lasting_settings(config.fit, recorded, by_role, data),
            settle=lambda: twin.observe(images),
        )
        ranges = twin.observe(images)
        save_model(twin.model, run.path / MODEL_FILE)
        metrics = _metrics(twin, data, run, result, before)
        made = _Made(parent, by_role, kept, chosen, ranges, twin, metrics, result)
        return run.commit(_manifest(config, data, made), scratch=checkpoint.FILES)


@dataclass(frozen=True)
class _Made:
    parent: ModelReference
    parents: dict[str, str]
    kept: dict[str, str]
    chosen: NDArray[np.int64]
    ranges: Ranges
    twin: Simulation
    metrics: dict[str, Any]
    result: FitResult


def _tell(config: QatConfig, twin: Simulation, kept: dict[str, str]) -> None:
    say(f"{config.name}: {config.model}, {len(twin.layers)} layers in int8")
    for layer, what in kept.items():
        say(f"  {layer}: {what}, kept")
    for layer, reason in twin.partly.items():
        say(f"  {layer}: {reason}")


def _accuracy(model: Any, data: Dataset) -> float:
    val = data["val"]
    return float((predict_logits(model, val.images).argmax(axis=1) == val.labels).mean())


def _metrics(
    twin: Simulation,
    data: Dataset,
    run: RunFolder,
    result: FitResult,
    before: tuple[float, float],
) -> dict[str, Any]:
    """Return val's figures: of the saved model, of int8, and of both before fine-tuning."""
    val = data["val"]
    p = softmax(predict_logits(twin.net, val.images))
    return {
        **val_figures(twin.model, data, run, result),
        "val_int8": classification_metrics(val.labels, p),
        "before": {"parent_accuracy_val": before[0], "int8_accuracy_val": before[1]},
    }


def _manifest(config: QatConfig, data: Dataset, made: _Made) -> Manifest:
    recorded = {
        **asdict(config),
        **conditions(),
        "mode": "qat",
        "calibration": {
            "split": "train",
            "indices": made.chosen.tolist(),
            "varied": config.fit.augment.wide,
        },
        "preserved": made.kept,
        "quantized": made.twin.layers,
        "not_simulated": made.twin.partly,
        "activation_ranges": {name: list(span) for name, span in made.ranges.items()},
    }
    entry = {
        **made.parent.manifest.get("model", {}),
        "class_names": list(made.parent.class_names or data.class_names),
        "parameters": int(made.twin.model.count_params()),
        "input": "RGB pixel values 0..255; scaling is the first layer",
        "output": "logits",
    }
    return Manifest(
        kind="quantize",
        name=config.name,
        config=recorded,
        data=data.describe(),
        parents=made.parents,
        model=entry,
        metrics=made.metrics,
        seed=config.fit.seed,
        duration_s=made.result.seconds,
        resumed=made.result.resumed,
        hardware=describe_keras_hardware(),
    )
