"""The training loop: one `fit` an epoch, val after each, a checkpoint after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge import hosts
from bloodedge.console import Meter, say
from bloodedge.data.dataset import Split
from bloodedge.errors import TrainingError
from bloodedge.files import write_csv
from bloodedge.metrics import softmax
from bloodedge.train.augment import shrink
from bloodedge.train.calibrating import as_trained
from bloodedge.train.checkpoint import Checkpoints, Progress
from bloodedge.train.config import FitConfig
from bloodedge.train.device import side_by_side, use_jit
from bloodedge.train.optimize import use_averages
from bloodedge.train.renorm import IMAGES, renorm
from bloodedge.train.targets import Targets
from bloodedge.train.trainer import Trainer

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
    net: Any,
    train: Split,
    val: Split,
    targets: Targets,
    config: FitConfig,
    folder: Path,
    settings: dict[str, Any],
    *,
    search_from: int = 0,
    settle: Callable[[], object] | None = None,
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
        search_from: the first epoch (from 0) whose weights may be kept in the end.
        settle: called before each validation, to bring what follows from the weights up to date.

    Raises:
        TrainingError: the loss became infinite or NaN, or the device has too little memory.
        RunError: the checkpoints there cannot be read, or were written with other settings; or
            hosts that train together were started with different ones.
        ConfigError: the devices cannot share a batch, or the images cannot be shrunk to a size of
            the progressive phases.
        BloodedgeError: a checkpoint or the history cannot be written.
    """
    trainer = Trainer(net, train, targets, config)
    checkpoints = Checkpoints(folder, net, trainer.optimizer)
    progress = checkpoints.load(settings)
    full = int(train.images.shape[1])
    starts = _phase_starts(config, full) | {search_from}
    seen = _some_as_trained(train, config) if config.ema else None
    for epoch in range(progress.epoch, config.epochs):
        started = time.monotonic()
        size = config.size_at(epoch, full)
        with _memory(config.batch):
            row = trainer.train_epoch(epoch, size)
            with _averaged(net, trainer.optimizer, seen, size):
                if settle:
                    settle()
                row |= hosts.agree(_validate(net, val, size))
                row["seconds"] = round(time.monotonic() - started, 2)
                _keep_best(net, progress, row, epoch in starts)
        _record(progress, row, folder)
        checkpoints.save_if_due(progress)
    net.set_weights(progress.best_weights)
    return FitResult(
        progress.best_epoch, progress.history, round(progress.seconds, 1), progress.resumed
    )


@contextmanager
def _memory(batch: int) -> Iterator[None]:
    """Turn every backend's own error about memory into one of ours."""
    try:
        yield
    except Exception as error:
        if not _is_about_memory(error):
            raise
        raise TrainingError(
            f"the memory does not hold a step of {batch} images",
            # Not every command that trains has --batch, `reproduce study` least of all.
            fix="a smaller --batch, where the command has it, or a device with more memory",
        ) from error


def _is_about_memory(error: Exception) -> bool:
    """Whether JAX, TensorFlow or PyTorch, none of which is imported here, lacked memory."""
    if isinstance(error, MemoryError):
        return True
    name = type(error).__name__
    if name in ("JaxRuntimeError", "XlaRuntimeError"):
        return "RESOURCE_EXHAUSTED" in str(error)
    if name == "RuntimeError":
        # PyTorch's CPU has no class of its own for it.
        return "DefaultCPUAllocator" in str(error)
    return name in ("ResourceExhaustedError", "OutOfMemoryError")


def _some_as_trained(train: Split, config: FitConfig) -> NDArray[np.float32]:
    """Return images for batch norm's statistics: those of train, varied as well if widely."""
    index = np.random.default_rng(config.seed).permutation(len(train))[:IMAGES]
    images = as_trained(train.images[index], config.augment, config.seed)
    mixed = images[np.random.default_rng(config.seed).permutation(len(images))]
    return mixed.astype(np.float32)


@contextmanager
def _averaged(
    net: Any, optimizer: Any, images: NDArray[np.float32] | None, size: int
) -> Iterator[None]:
    """Give the net its averaged weights for the time inside; without images it has none.

    Batch norm's running statistics are of what the weights of the last steps made of the images;
    the averages get their own (Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima").
    """
    if images is None:
        yield
        return
    before = net.get_weights()
    use_averages(optimizer, net.trainable_variables)
    # A copy: JAX would hand the averages' own memory to the prediction, which gives it away.
    net.set_weights(net.get_weights())
    renorm(net, shrink(images, size))
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

    def answers(start: int) -> Any:
        chunk = images[start : start + _PREDICT_BATCH].astype(np.float32)
        padded = np.zeros((min(_PREDICT_BATCH, len(images)), *chunk.shape[1:]), np.float32)
        padded[: len(chunk)] = chunk
        batch = shrink(padded, size) if size else padded
        return keras.ops.convert_to_numpy(model.predict_on_batch(batch))[: len(chunk)]

    with Meter(label or "predict", len(starts)) as meter, side_by_side(answers, starts) as found:
        for out in found:
            rows.append(out)
            meter.update()
    return np.concatenate(rows).astype(np.float32)


def _validate(model: Any, val: Split, size: int) -> dict[str, float]:
    p = softmax(predict_logits(model, val.images, size=size, label="val"))
    picked = p[np.arange(len(val)), val.labels]
    return {
        "val_loss": float(-np.log(np.maximum(picked, 1e-12)).mean()),
        "val_accuracy": float((p.argmax(axis=1) == val.labels).mean()),
    }


def _phase_starts(config: FitConfig, full: int) -> set[int]:
    """Scores at another image size do not compare, so each phase starts its own search."""
    sizes = [config.size_at(epoch, full) for epoch in range(config.epochs)]
    return {0} | {epoch for epoch in range(1, config.epochs) if sizes[epoch] != sizes[epoch - 1]}


def _keep_best(net: Any, progress: Progress, row: dict[str, float], phase_starts: bool) -> None:
    score = (row["val_accuracy"], -row["val_loss"])
    if phase_starts or score > progress.best_score:
        progress.best_score, progress.best_epoch = score, int(row["epoch"])
        progress.best_weights = net.get_weights()


def _record(progress: Progress, row: dict[str, float], folder: Path) -> None:
    """Count the epoch as done, write the history, and say what the epoch gave."""
    progress.epoch = int(row["epoch"])
    progress.history.append(row)
    progress.seconds += row["seconds"]
    _write_history(folder / "history.csv", progress.history)
    say(
        f"epoch {row['epoch']}: loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f} "
        f"| val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.4f} "
        f"({row['seconds']:.0f} s, best epoch {progress.best_epoch})"
    )


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    names = list(history[0])
    write_csv(path, names, ([row[name] for name in names] for row in history))
