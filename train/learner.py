"""The model as it is trained: augmentation, the net and the loss in one compiled step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.data.dataset import Split
from bloodedge.train.augment import Draws, draw
from bloodedge.train.augment_ops import augment, mix_targets, shrink_by
from bloodedge.train.config import FitConfig
from bloodedge.train.targets import Targets

Batch = tuple[dict[str, NDArray[Any]], NDArray[np.float32]]


def make_learner(net: Any, config: FitConfig, factor: int, store: NDArray[np.uint8] | None) -> Any:
    """Wrap a net so that it takes the batches of `Feed` and trains on augmented images.

    Args:
        net: a Keras model whose rows start with the logits; it is trained in place.
        config: what varies.
        factor: by how much the images are shrunk after augmentation, 1 for not at all.
        store: `(M, S, S, 3)` all images, to be kept on the device; None if batches bring theirs.

    Returns:
        A Keras model whose outputs are the net's.
    """
    import keras

    class FiniteSteps(keras.metrics.Metric):  # type: ignore[misc]
        """Counts the steps before the loss is first infinite or NaN, without leaving the device."""

        def __init__(self) -> None:
            super().__init__(name="finite_steps")
            self.alive = self.add_variable((), "ones", name="alive")
            self.count = self.add_variable((), "zeros", name="count")

        def update_state(self, loss: Any) -> None:
            finite = keras.ops.cast(keras.ops.isfinite(loss), "float32")
            self.alive.assign(self.alive * finite)
            self.count.assign(self.count + self.alive)

        def reset_state(self) -> None:
            self.alive.assign(1.0)
            self.count.assign(0.0)

        def result(self) -> Any:
            return keras.ops.convert_to_tensor(self.count)

    class Learner(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(name="learner")
            self.net = net
            self.finite_steps = FiniteSteps()
            self.store = None
            if store is not None:
                self.store = keras.Variable(store, dtype="uint8", trainable=False, name="store")

        def call(self, batch: dict[str, Any], training: bool = False) -> Any:
            if self.store is None:
                images = batch["images"]
            else:
                images = keras.ops.take(self.store, batch["index"], axis=0)
            x = shrink_by(augment(images, batch, config.augment), factor)
            # In half precision the loss is still computed in single.
            return keras.ops.cast(self.net(x, training=training), "float32")

        def compute_loss(
            self,
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> Any:
            if config.augment.mixes:
                y = mix_targets(y, x)
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            self.finite_steps.update_state(loss)
            return loss

    return Learner()


def steps_per_epoch(images: int, batch: int) -> int:
    """Return how many whole batches an epoch has, at least one."""
    return max(1, images // batch)


class Feed:
    """The batches of each epoch: images or their numbers, the draws, and the targets.

    Each batch depends on seed, epoch and step alone, so resuming repeats it.

    Args:
        train: the images.
        targets: what each is trained towards.
        config: batch size, seed and augmentation.
        on_device: whether the learner holds the images.
    """

    def __init__(
        self, train: Split, targets: Targets, config: FitConfig, *, on_device: bool
    ) -> None:
        self._train = train
        self._targets = targets
        self._config = config
        self._on_device = on_device
        self.steps = steps_per_epoch(len(train), config.batch)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch, counted from 0."""
        c = self._config
        order = self._order(np.random.default_rng([c.seed, epoch]))
        for step in range(self.steps):
            index = order[step * c.batch : (step + 1) * c.batch]
            rng = np.random.default_rng([c.seed, epoch, step])
            yield self._batch(index, rng)

    def _order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        count = len(self._train)
        if not self._config.balance:
            return rng.permutation(count)
        labels = self._train.labels
        odds = np.bincount(labels)[labels] ** -self._config.balance
        return rng.choice(count, count, p=odds / odds.sum())

    def _batch(self, index: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        side = self._train.images.shape[1]
        inputs: Draws = draw(self._config.augment, len(index), side, rng)
        rows = self._targets.for_batch(index, inputs["view"].astype(np.int64))
        if self._on_device:
            inputs["index"] = index.astype(np.int32)
        else:
            inputs["images"] = self._train.images[index]
        return inputs, rows
