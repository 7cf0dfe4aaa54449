"""The training loop: one `fit` an epoch, val after each, a checkpoint after each."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.console import Meter, say
from bloodedge.data.dataset import Split
from bloodedge.errors import TrainingError
from bloodedge.files import atomic_path
from bloodedge.metrics import softmax
from bloodedge.train import checkpoint
from bloodedge.train.augment import shrink
from bloodedge.train.config import FitConfig
from bloodedge.train.learner import Feed, make_learner, shrink_factor
from bloodedge.train.optimize import has_accelerator, make_optimizer, use_jit
from bloodedge.train.targets import Targets

_PREDICT_BATCH = 256
# Reading a step's loss waits for the device; a person needs it only so often.
_SHOW_EVERY_S = 0.5


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
    net: Any,
    train: Split,
    val: Split,
    targets: Targets,
    config: FitConfig,
    folder: Path,
    settings: dict[str, Any],
) -> FitResult:
    """Train a model and leave it with its best weights by val.

    Args:
        net: a Keras model, logits out.
        train: the images to learn from.
        val: the images that choose the epoch.
        targets: what to learn, and the loss.
        config: how.
        folder: where checkpoints and `history.csv` go; a checkpoint found there is continued.
        settings: everything that must be unchanged when the fit is continued.

    Raises:
        TrainingError: the loss became infinite or NaN.
    """
    work = _Work(net, train, targets, config)
    progress = checkpoint.load(folder, net, work.optimizer, settings)
    full = int(train.images.shape[1])
    for epoch in range(progress.epoch, config.epochs):
        started = time.monotonic()
        size = config.size_at(epoch, full)
        row = work.train_epoch(epoch, size)
        with _averaged(net, work.optimizer):
            row |= _validate(net, val, size)
            row["seconds"] = round(time.monotonic() - started, 2)
            _keep_best(net, progress, row, folder, _starts_phase(config, epoch, full))
        _record(net, work.optimizer, progress, row, folder)
    net.set_weights(checkpoint.load_best(folder))
    return FitResult(
        progress.best_epoch, progress.history, round(progress.seconds, 1), progress.resumed
    )


class _Work:
    """What the epochs of a fit share: the batches, the optimizer, a compiled step per size."""

    def __init__(self, net: Any, train: Split, targets: Targets, config: FitConfig) -> None:
        self._net = net
        self._images = train.images
        self._targets = targets
        self._config = config
        self._on_device = has_accelerator()
        self._feed = Feed(train, targets, config, on_device=self._on_device)
        self._learners: dict[int, Any] = {}
        self.optimizer = make_optimizer(config, self._feed.steps)

    def _learner(self, size: int) -> Any:
        if size not in self._learners:
            factor = shrink_factor(int(self._images.shape[1]), size)
            store = self._images if self._on_device else None
            learner = make_learner(self._net, self._config, factor, store)
            learner.compile(
                self.optimizer,
                loss=self._targets.loss,
                metrics=[_label_accuracy(int(self._net.output_shape[-1]))],
                jit_compile=use_jit(),
            )
            # One compiled step at a time: another size will not come back.
            self._learners = {size: learner}
        return self._learners[size]

    def train_epoch(self, epoch: int, size: int) -> dict[str, float]:
        import keras

        config, steps = self._config, self._feed.steps
        learner = self._learner(size)
        label = f"epoch {epoch + 1}/{config.epochs}" + (
            f" at {size} px" if config.progressive else ""
        )
        with Meter(label, steps) as meter:
            history = learner.fit(
                self._feed.epoch(epoch),
                steps_per_epoch=steps,
                epochs=1,
                verbose=0,
                shuffle=False,
                callbacks=[_make_show(meter, epoch, steps)],
            ).history
        _refuse_nan(int(history["finite_steps"][0]), steps, epoch)
        return {
            "epoch": epoch + 1,
            "size": size,
            "learning_rate": float(keras.ops.convert_to_numpy(self.optimizer.learning_rate)),
            "train_loss": float(history["loss"][0]),
            "train_accuracy": float(history["accuracy"][0]),
        }


def _label_accuracy(classes: int) -> Any:
    """Return the accuracy against the labels, which lead every row of targets."""

    def accuracy(target: Any, logits: Any) -> Any:
        from keras import ops

        truth = ops.argmax(target[:, :classes], axis=-1)
        return ops.cast(ops.equal(truth, ops.argmax(logits, axis=-1)), "float32")

    return accuracy


def _make_show(meter: Meter, epoch: int, steps: int) -> Any:
    import keras

    class Show(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._shown = 0.0
            self._note = ""

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            now = time.monotonic()
            if logs and now - self._shown > _SHOW_EVERY_S:
                self._shown = now
                _refuse_nan(int(logs["finite_steps"]), batch + 1, epoch)
                loss, accuracy = float(logs["loss"]), float(logs["accuracy"])
                self._note = f"loss {loss:.3f} accuracy {accuracy:.3f}"
            meter.update(self._note)

    return Show()


def _refuse_nan(finite_steps: int, steps: int, epoch: int) -> None:
    if finite_steps < steps:
        raise TrainingError(
            f"the loss became infinite or NaN in epoch {epoch + 1}, step {finite_steps + 1}",
            fix="lower --lr and start again with --force",
        )


@contextmanager
def _averaged(net: Any, optimizer: Any) -> Iterator[None]:
    """Give the net its averaged weights, where the optimizer keeps some, for the time inside."""
    if not optimizer.use_ema:
        yield
        return
    before = net.get_weights()
    optimizer.finalize_variable_values(net.trainable_variables)
    # A copy: JAX would hand the averages' own memory to the prediction, which gives it away.
    net.set_weights(net.get_weights())
    yield
    net.set_weights(before)


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
    model.jit_compile = use_jit()
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


def _keep_best(
    net: Any,
    progress: checkpoint.Progress,
    row: dict[str, float],
    folder: Path,
    phase_starts: bool,
) -> None:
    score = (row["val_accuracy"], -row["val_loss"])
    if phase_starts or score > progress.best_score:
        progress.best_score, progress.best_epoch = score, int(row["epoch"])
        checkpoint.save_best(folder, net.get_weights())


def _record(
    net: Any, optimizer: Any, progress: checkpoint.Progress, row: dict[str, float], folder: Path
) -> None:
    """Write the checkpoint and the history, and say what the epoch gave."""
    progress.epoch = int(row["epoch"])
    progress.history.append(row)
    progress.seconds += row["seconds"]
    checkpoint.save(folder, net, optimizer, progress)
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
