"""The model as it is trained: augmentation, the net and the loss in one compiled step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodedge.train.augment_ops import augment, mix_targets, shrink_by
from bloodedge.train.config import FitConfig
from bloodedge.train.dispatch import cut, scanning


def make_learner(
    net: Any,
    config: FitConfig,
    factor: int,
    store: NDArray[np.uint8] | None,
    *,
    interleaved: bool = False,
    parts: int = 1,
) -> Any:
    """Wrap a net so that it takes the batches of `Feed` and trains on augmented images.

    Args:
        net: a Keras model whose rows start with the logits; it is trained in place.
        config: what varies.
        factor: by how much the images are shrunk after augmentation, 1 for not at all.
        store: `(M, S, S, 3)` all images, to be kept on the device; None if batches bring theirs.
        interleaved: whether it gets the batches of several steps at once; JAX alone can take them.
        parts: into how many equal parts a batch is cut, each computed on its own side by side.

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
            if parts == 1:
                return self.answer(self.vary(batch), training)
            # Images that are mixed need their partners from the whole batch.
            early = config.augment.mixes
            pieces = cut(self.vary(batch) if early else batch, parts)
            varied = pieces if early else map(self.vary, pieces)
            return keras.ops.concatenate([self.answer(x, training) for x in varied])

        def vary(self, batch: dict[str, Any]) -> Any:
            if self.store is None:
                images = batch["images"]
            else:
                images = keras.ops.take(self.store, batch["index"], axis=0)
            return shrink_by(augment(images, batch, config.augment), factor)

        def answer(self, x: Any, training: bool) -> Any:
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

    return scanning(Learner, config.batch)() if interleaved else Learner()
