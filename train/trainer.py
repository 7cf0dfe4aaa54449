"""One epoch of training: batches in, compiled steps, loss and accuracy out."""

from __future__ import annotations

import time
from typing import Any

from bloodedge.console import Meter
from bloodedge.data.dataset import Split
from bloodedge.errors import TrainingError
from bloodedge.train.augment import shrink_factor
from bloodedge.train.config import FitConfig
from bloodedge.train.device import has_accelerator, use_jit
from bloodedge.train.learner import Feed, make_learner
from bloodedge.train.optimize import make_optimizer
from bloodedge.train.targets import Targets

# Reading a step's loss waits for the device; a person needs it only so often.
_SHOW_EVERY_S = 0.5


class Trainer:
    """What the epochs of a fit share: the batches, the optimizer, a compiled step per size.

    Args:
        net: a Keras model, logits out; it is trained in place.
        train: the images to learn from.
        targets: what to learn, and the loss.
        config: how.
    """

    def __init__(self, net: Any, train: Split, targets: Targets, config: FitConfig) -> None:
        self._classes = int(net.output_shape[-1])
        self._answering = targets.respond(net)
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
            learner = make_learner(self._answering, self._config, factor, store)
            learner.compile(
                self.optimizer,
                loss=self._targets.loss,
                metrics=[_label_accuracy(self._classes)],
                jit_compile=use_jit(),
            )
            # One compiled step at a time: another size will not come back.
            self._learners = {size: learner}
        return self._learners[size]

    def train_epoch(self, epoch: int, size: int) -> dict[str, float]:
        """Train one epoch (counted from 0) on images shrunk to `size`, and return its figures.

        Raises:
            TrainingError: the loss became infinite or NaN.
        """
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
    """Return the accuracy of the logits against the labels, which lead every row of both."""

    def accuracy(target: Any, outputs: Any) -> Any:
        from keras import ops

        truth = ops.argmax(target[:, :classes], axis=-1)
        return ops.cast(ops.equal(truth, ops.argmax(outputs[:, :classes], axis=-1)), "float32")

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
