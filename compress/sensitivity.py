"""`bloodedge sensitivity`: what quantizing or pruning each layer alone would cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.compress.fold import fold
from bloodedge.compress.simulate import Simulation
from bloodedge.console import say, track
from bloodedge.data.calibration import calibration_indices
from bloodedge.data.dataset import Dataset
from bloodedge.errors import ConfigError, check_range
from bloodedge.figures import can_draw, new_figure, save_figure
from bloodedge.files import write_csv
from bloodedge.metrics import Floats
from bloodedge.references import ModelReference, find_keras
from bloodedge.runs import Manifest, Run, Stopwatch, check_name, open_run
from bloodedge.train.calibrating import as_trained
from bloodedge.train.loop import predict_logits
from bloodedge.train.recipes import wide_augmentation
from bloodedge.train.restore import restore_for

KIND = "sensitivity"


@dataclass(frozen=True)
class SensitivityConfig:
    """What `bloodedge sensitivity` examines.

    Attributes:
        model: a run, a file or a zoo model.
        name: the run to write.
        sparsity: the share of each layer's weights, those of least magnitude, set to zero.
        images: val images, class-balanced; 0 for all.
        per_class: calibration images of each class, drawn from train.
        seed: fixes the draws.
        force: replace a run of that name.

    Raises:
        ConfigError: a number out of range.
        RunError: a name that no run can have.
    """

    model: str
    name: str
    sparsity: float = 0.5
    images: int = 0
    per_class: int = 32
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        check_name(self.name)
        if not 0 < self.sparsity < 1:
            raise ConfigError(f"--sparsity {self.sparsity}", expected="between 0 and 1")
        if self.images < 0:
            raise ConfigError(f"--images {self.images}", expected="0 for all, or more")
        check_range("--seed", self.seed, 0, 2**31)
        check_range("--calibration-per-class", self.per_class, 1, 10_000)


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        layer: its name.
        weights: how many its kernel has.
        int8_accuracy, pruned_accuracy: on val, of the model with this layer alone quantized
            (kernel and output), or pruned.
        int8_error, pruned_error: root mean square change of a logit, relative to that of the
            logits themselves.
    """

    layer: str
    weights: int
    int8_accuracy: float
    int8_error: float
    pruned_accuracy: float
    pruned_error: float


def sensitivity(config: SensitivityConfig, data: Dataset) -> Run:
    """Quantize and prune each layer of a model alone, and write what it costs as a run folder.

    The folder holds `sensitivity.csv`, a bar plot and the manifest.

    Raises:
        ModelError: the model is missing, damaged, or does not fit the data.
        RunError: the run exists.
    """
    reference = find_keras(config.model)
    watch = Stopwatch()
    with open_run(config.name, force=config.force, reads=(reference.sha256,)) as run:
        twin = Simulation(fold(restore_for(reference, data, "model")), switchable=True)
        train, val = data["train"], data["val"]
        chosen = calibration_indices(train.labels, config.per_class, config.seed)
        trained = wide_augmentation(reference.manifest)
        twin.observe(as_trained(train.images[chosen], trained, config.seed))
        index = np.arange(len(val))
        if 0 < config.images < len(val):
            each = -(-config.images // len(data.class_names))
            index = calibration_indices(val.labels, each, config.seed)
        say(f"{config.name}: {len(twin.layers)} layers on {len(index):,} val images")
        figures, rows = examine(twin, val.images[index], val.labels[index], config.sparsity)
        _write_csv(run.path / "sensitivity.csv", rows)
        if can_draw():
            note = "synthetic data, " if data.synthetic else ""
            _draw(rows, f"{run.name}: {note}val", run.path / "sensitivity.png")
        metrics = {**figures, "images": len(index), "layers": [asdict(row) for row in rows]}
        return run.commit(_manifest(config, data, reference, twin, metrics, watch))


def examine(
    twin: Simulation, images: NDArray[np.uint8], labels: NDArray[np.int64], sparsity: float
) -> tuple[dict[str, float], list[Row]]:
    """Return the accuracy in float and in int8, and a row for every layer with weights.

    Args:
        twin: a switchable simulation whose ranges have been observed.
        images: `(N, S, S, 3)`.
        labels: `(N,)`.
        sparsity: the share of weights set to zero.
    """

    def logits() -> Floats:
        return predict_logits(twin.net, images).astype(np.float64)

    def accuracy(z: Floats) -> float:
        return float((z.argmax(axis=1) == labels).mean())

    twin.round_only(None)
    whole = accuracy(logits())
    twin.round_only(())
    plain = logits()
    size = float(np.sqrt((plain**2).mean())) or 1.0
    rows = []
    for layer in track(twin.layers, "layers", len(twin.layers)):
        twin.round_only((layer, twin.output_of(layer)))
        rounded = logits()
        twin.round_only(())
        with pruned(twin.kernels(layer), sparsity):
            cut = logits()
        errors = [float(np.sqrt(((z - plain) ** 2).mean())) / size for z in (rounded, cut)]
        weights = sum(int(np.prod(v.shape)) for v in twin.kernels(layer))
        rows.append(Row(layer, weights, accuracy(rounded), errors[0], accuracy(cut), errors[1]))
    return {"float_accuracy_val": accuracy(plain), "int8_accuracy_val": whole}, rows


@contextmanager
def pruned(kernels: Sequence[Any], sparsity: float) -> Iterator[None]:
    """Set the weights of least magnitude to zero for the time inside."""
    import keras

    before = [np.array(keras.ops.convert_to_numpy(kernel)) for kernel in kernels]
    for kernel, values in zip(kernels, before, strict=True):
        order = np.argsort(np.abs(values), axis=None, kind="stable")
        cut = values.copy()
        cut.ravel()[order[: round(sparsity * values.size)]] = 0
        kernel.assign(cut)
    try:
        yield
    finally:
        for kernel, values in zip(kernels, before, strict=True):
            kernel.assign(values)


def _write_csv(path: Path, rows: list[Row]) -> None:
    write_csv(path, list(asdict(rows[0])), (list(asdict(row).values()) for row in rows))


def _draw(rows: list[Row], title: str, path: Path) -> None:
    figure = new_figure(8, 1.5 + 0.28 * len(rows))
    axis = figure.subplots()
    place = np.arange(len(rows))
    axis.barh(place - 0.2, [r.int8_error for r in rows], 0.4, label="int8")
    axis.barh(place + 0.2, [r.pruned_error for r in rows], 0.4, label="pruned")
    axis.set_yticks(place, [r.layer for r in rows], parse_math=False)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xlabel("relative change of the logits when this layer alone is changed")
    axis.set_title(title, parse_math=False)
    axis.grid(axis="x", alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def _manifest(
    config: SensitivityConfig,
    data: Dataset,
    reference: ModelReference,
    twin: Simulation,
    metrics: dict[str, Any],
    watch: Stopwatch,
) -> Manifest:
    return Manifest(
        kind=KIND,
        name=config.name,
        config={**asdict(config), "not_simulated": twin.partly},
        data=data.describe(),
        parents={"parent": reference.sha256},
        model={"class_names": list(data.class_names), "reference": reference.name},
        metrics=metrics,
        seed=config.seed,
        duration_s=watch.seconds(),
    )
