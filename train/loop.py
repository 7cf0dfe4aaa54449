"""The training loop: one `fit` an epoch, val after each, a checkpoint after each."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import Meter, say
from bloodedge.data.dataset import Split
from bloodedge.errors import ConfigError
from bloodedge.files import atomic_path
from bloodedge.metrics import softmax
from bloodedge.train import checkpoint
from bloodedge.train.augment import augment_batch, shrink
from bloodedge.train.config import FitConfig
from bloodedge.train.targets import Targets

_PREDICT_BATCH = 256


@dataclass(frozen=True)
class FitResult:
    """What a fit yields, beside the best weights, which are in the model.

    Attributes:
        best_epoch: the epoch (from 1) whose weights were kept, by val accuracy, then loss.
        history: a row per epoch.
        seconds: work over all sessions.
        resumed: how often the fit was continued.
    """

    best_epoch: int
    history: list[dict[str, float]]
    seconds: float
    resumed: int


def fit(
    model: Any,
    train: Split,
    val: Split,
    targets: Targets,
    config: FitConfig,
    folder: Path,
    settings: dict[str, Any],
) -> FitResult:
    """Train a model and leave it with its best weights by val.

    Args:
        model: a Keras model for images of any size, logits out.
        train: the images to learn from.
        val: the images that choose the epoch.
        targets: what to learn, and the loss.
        config: how.
        folder: where checkpoints and `history.csv` go; a checkpoint found there is continued.
        settings: everything that must be unchanged when the fit is continued.
    """
    steps = max(1, len(train) // config.batch)
    _compile(model, targets, config, steps, classes=model.output_shape[-1])
    progress = checkpoint.load(folder, model, settings)
    full = int(train.images.shape[1])
    for epoch in range(progress.epoch, config.epochs):
        started = time.monotonic()
        size = config.size_at(epoch, full)
        row = _train_epoch(model, train, targets, config, epoch, size, steps)
        row |= _validate(model, val, size)
        row["seconds"] = round(time.monotonic() - started, 2)
        _record(model, progress, row, folder, phase_starts=_starts_phase(config, epoch, full))
    model.set_weights(checkpoint.load_best(folder))
    return FitResult(
        progress.best_epoch, progress.history, round(progress.seconds, 1), progress.resumed
    )


def _compile(model: Any, targets: Targets, config: FitConfig, steps: int, classes: int) -> None:
    import keras

    total = steps * config.epochs
    warmup = max(1, round(config.warmup * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        max(1, total - warmup),
        warmup_target=config.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

    def accuracy(target: Any, logits: Any) -> Any:
        truth = keras.ops.argmax(target[:, :classes], axis=-1)
        return keras.ops.cast(keras.ops.equal(truth, keras.ops.argmax(logits, axis=-1)), "float32")

    model.compile(optimizer, loss=targets.loss, metrics=[accuracy], jit_compile=_use_jit())


def _use_jit() -> bool:
    """XLA pays on a GPU; on a CPU, TensorFlow's own oneDNN kernels are at least as fast."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return bool(keras.backend.backend() == "jax")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _batches(
    train: Split, targets: Targets, config: FitConfig, epoch: int, size: int, steps: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield an epoch's batches; each depends on seed, epoch and step alone, so resuming repeats."""
    n = len(train)
    order = np.random.default_rng([config.seed, epoch]).permutation(n)
    for step in range(steps):
        index = order[step * config.batch : (step + 1) * config.batch]
        rng = np.random.default_rng([config.seed, epoch, step])
        images, views = augment_batch(train.images, index, config.augment, rng)
        yield shrink(images, size), targets.for_batch(index, views)


def _train_epoch(
    model: Any,
    train: Split,
    targets: Targets,
    config: FitConfig,
    epoch: int,
    size: int,
    steps: int,
) -> dict[str, float]:
    import keras

    label = f"epoch {epoch + 1}/{config.epochs}" + (f" at {size} px" if config.progressive else "")
    with Meter(label, steps) as meter:

        class Show(keras.callbacks.Callback):  # type: ignore[misc]
            def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
                logs = logs or {}
                meter.update(f"loss {logs['loss']:.3f} accuracy {logs['accuracy']:.3f}")

        history = model.fit(
            _batches(train, targets, config, epoch, size, steps),
            steps_per_epoch=steps,
            epochs=1,
            verbose=0,
            shuffle=False,
            callbacks=[Show()],
        ).history
    rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    return {
        "epoch": epoch + 1,
        "size": size,
        "learning_rate": rate,
        "train_loss": float(history["loss"][0]),
        "train_accuracy": float(history["accuracy"][0]),
    }


def predict_logits(
    model: Any, images: NDArray[np.uint8], *, size: int | None = None, label: str = ""
) -> NDArray[np.float32]:
    """Return `(N, C)` logits for uint8 images, in fixed batches so nothing is compiled twice.

    Args:
        model: a Keras model, logits out.
        images: `(N, S, S, 3)`.
        size: the side to shrink to first, if any.
        label: shows progress under this name.
    """
    import keras

    starts = range(0, len(images), _PREDICT_BATCH)
    rows = []
    with Meter(label or "predict", len(starts)) as meter:
        for start in starts:
            chunk = images[start : start + _PREDICT_BATCH].astype(np.float32)
            padded = np.zeros((min(_PREDICT_BATCH, len(images)), *chunk.shape[1:]), np.float32)
            padded[: len(chunk)] = chunk
            batch = shrink(padded, size) if size else padded
            out = keras.ops.convert_to_numpy(model.predict_on_batch(batch))
            rows.append(out[: len(chunk)])
            meter.update()
    return np.concatenate(rows).astype(np.float32)


def _validate(model: Any, val: Split, size: int) -> dict[str, float]:
    p = softmax(predict_logits(model, val.images, size=size, label="val"))
    picked = p[np.arange(len(val)), val.labels]
    return {
        "val_loss": float(-np.log(np.maximum(picked, 1e-12)).mean()),
        "val_accuracy": float((p.argmax(axis=1) == val.labels).mean()),
    }


def _starts_phase(config: FitConfig, epoch: int, full: int) -> bool:
    """Scores at another image size do not compare, so each phase starts its own search."""
    return epoch == 0 or config.size_at(epoch, full) != config.size_at(epoch - 1, full)


def _record(
    model: Any,
    progress: checkpoint.Progress,
    row: dict[str, float],
    folder: Path,
    phase_starts: bool,
) -> None:
    """Say what the epoch gave, keep its weights if they are the best, and write the checkpoint."""
    if not np.isfinite(row["train_loss"]):
        raise ConfigError(
            f"the loss became {row['train_loss']} in epoch {row['epoch']}", fix="lower --lr"
        )
    score = (row["val_accuracy"], -row["val_loss"])
    if phase_starts or score > progress.best_score:
        progress.best_score, progress.best_epoch = score, int(row["epoch"])
        checkpoint.save_best(folder, model.get_weights())
    progress.epoch = int(row["epoch"])
    progress.history.append(row)
    progress.seconds += row["seconds"]
    checkpoint.save(folder, model, progress)
    _write_history(folder / "history.csv", progress.history)
    say(
        f"epoch {row['epoch']}: loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f} "
        f"| val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.4f} "
        f"({row['seconds']:.0f} s, best epoch {progress.best_epoch})"
    )


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
