"""One epoch of training: batches in, compiled steps, loss and accuracy out."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from bloodedge import hosts
from bloodedge.console import Meter
from bloodedge.data.dataset import Split
from bloodedge.errors import ModelError, TrainingError
from bloodedge.train.augment import shrink_factor
from bloodedge.train.config import FitConfig
from bloodedge.train.cost import STEP_OVER_FORWARD, count_macs
from bloodedge.train.device import batch_parts, check_batch, has_accelerator, use_jit
from bloodedge.train.dispatch import steps_per_dispatch
from bloodedge.train.feed import Feed, as_dataset, interleaved
from bloodedge.train.fused import with_fused_norms
from bloodedge.train.learner import make_learner
from bloodedge.train.optimize import learning_rate, make_optimizer
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

    Raises:
        ConfigError: the devices cannot share a batch of it, or the images cannot be shrunk to a
            size of the progressive phases.
    """

    def __init__(self, net: Any, train: Split, targets: Targets, config: FitConfig) -> None:
        import keras

        self._classes = int(net.output_shape[-1])
        fusing = keras.backend.backend() == "tensorflow" and not use_jit()
        # Before live teachers are put beside it: their norms only predict.
        fused = with_fused_norms(net, batch_parts()) if fusing else net
        self._answering = targets.respond(fused)
        self._images = train.images
        self._targets = targets
        self._config = config
        self._on_device = has_accelerator()
        check_batch(config.batch, len(train))
        for size in config.smaller_sizes:
            # Now, as a later phase that is refused would cost the epochs before it.
            shrink_factor(int(train.images.shape[1]), size)
        rows = hosts.own_rows(min(config.batch, len(train)))
        on_tensorflow = keras.backend.backend() == "tensorflow"
        by_index = self._on_device or on_tensorflow
        self._feed = Feed(train, targets, config, by_index=by_index, rows=rows)
        # Live teachers, which are asked within a step, are slow enough for one step at a time.
        alone = isinstance(self._answering, keras.Function)
        step = _step_macs(net, train.images.shape[1:], config.batch) if alone else None
        self._together = steps_per_dispatch(self._feed.steps, step)
        # On JAX a batch holds the steps of a dispatch; TensorFlow takes them one by one.
        self._interleaved = self._together > 1 and not on_tensorflow
        self._data = self._epochs()
        self._learners: dict[int, Any] = {}
        self.optimizer = make_optimizer(config, self._feed.steps)

    def _epochs(self) -> Any:
        """Return what gives the data of an epoch."""
        import keras

        if keras.backend.backend() == "tensorflow":
            return as_dataset(self._feed.epoch, None if self._on_device else self._images)
        if self._interleaved:
            return lambda epoch: interleaved(self._feed.epoch(epoch), self._together)
        return self._feed.epoch

    def _learner(self, size: int) -> Any:
        if size not in self._learners:
            factor = shrink_factor(int(self._images.shape[1]), size)
            store = self._images if self._on_device else None
            learner = make_learner(
                self._answering,
                self._config,
                factor,
                store,
                interleaved=self._interleaved,
                parts=batch_parts(),
            )
            learner.compile(
                self.optimizer,
                loss=self._targets.loss,
                metrics=[_label_accuracy(self._classes)],
                jit_compile=use_jit(),
                steps_per_execution=1 if self._interleaved else self._together,
            )
            # One compiled step at a time: another size will not come back.
            self._learners = {size: learner}
        return self._learners[size]

    def train_epoch(self, epoch: int, size: int) -> dict[str, float]:
        """Train one epoch (counted from 0) on images shrunk to `size`, and return its figures.

        Raises:
            TrainingError: the loss became infinite or NaN.
        """
        config, steps = self._config, self._feed.steps
        learner = self._learner(size)
        label = f"epoch {epoch + 1}/{config.epochs}" + (
            f" at {size} px" if config.progressive else ""
        )
        with Meter(label, steps) as meter:
            history = learner.fit(
                self._data(epoch),
                steps_per_epoch=-(-steps // self._together) if self._interleaved else steps,
                epochs=1,
                verbose=0,
                shuffle=False,
                callbacks=_make_watch(learner, meter, epoch, steps, self._together, config.seed),
            ).history
        _refuse_nan(int(history["finite_steps"][0]), steps, epoch)
        return {
            "epoch": epoch + 1,
            "size": size,
            "learning_rate": learning_rate(config, steps, (epoch + 1) * steps),
            "train_loss": float(history["loss"][0]),
            "train_accuracy": float(history["accuracy"][0]),
        }


def _step_macs(model: Any, shape: tuple[int, ...], batch: int) -> int | None:
    """Return about how many multiply-accumulates a step takes, None for a model of unknown cost."""
    try:
        return STEP_OVER_FORWARD * batch * count_macs(model, shape)
    except ModelError:
        return None


def _label_accuracy(classes: int) -> Any:
    """Return the accuracy of the logits against the labels, which lead every row of both."""

    def accuracy(target: Any, outputs: Any) -> Any:
        from keras import ops

        truth = ops.argmax(target[:, :classes], axis=-1)
        return ops.cast(ops.equal(truth, ops.argmax(outputs[:, :classes], axis=-1)), "float32")

    return accuracy


def _make_watch(
    learner: Any, meter: Meter, epoch: int, steps: int, together: int, seed: int
) -> Any:
    """Return the callbacks of one epoch, `together` steps a dispatch."""
    import keras

    class Watch(keras.callbacks.CallbackList):  # type: ignore[misc]
        """Shows how far the epoch is, and stops it at a loss that is no number.

        Keras' own list reads every figure of every step, if anything is called after it, and so
        waits for the device.
        """

        def __init__(self) -> None:
            super().__init__(add_history=True, model=learner)
            self._done = 0
            self._shown = 0.0
            self._note = ""

        def on_epoch_begin(self, number: int, logs: dict[str, Any] | None = None) -> None:
            # Now, as Keras draws when it builds the learner, which a resumed run does once more.
            _seed_dropout(seed, epoch)
            super().on_epoch_begin(number, logs)

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            before, self._done = self._done, min(self._done + together, steps)
            now = time.monotonic()
            if logs and now - self._shown > _SHOW_EVERY_S:
                self._shown = now
                finite, loss, accuracy = (
                    float(keras.ops.convert_to_numpy(logs[name]))
                    for name in ("finite_steps", "loss", "accuracy")
                )
                _refuse_nan(int(finite), self._done, epoch)
                self._note = f"loss {loss:.3f} accuracy {accuracy:.3f}"
            meter.update(self._note, self._done - before)

    return Watch()


def _seed_dropout(seed: int, epoch: int) -> None:
    """Let an epoch's dropout depend on seed and epoch alone, so that resuming repeats it.

    On the other backends Keras has it from variables, which checkpoints hold; on PyTorch from
    PyTorch's own generator, which they do not.
    """
    import keras

    if keras.backend.backend() == "torch":
        key = np.random.default_rng([seed, epoch]).integers(2**63)
        sys.modules["torch"].manual_seed(int(key))


def _refuse_nan(finite_steps: int, steps: int, epoch: int) -> None:
    if finite_steps < steps:
        raise TrainingError(
            f"the loss became infinite or NaN in epoch {epoch + 1}, step {finite_steps + 1}",
            fix="start over (--force, or remove the unfinished run) with a lower learning rate "
            "(--lr, where the command has it)",
        )
