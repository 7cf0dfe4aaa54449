"""AdamW in few operations, where TensorFlow has them and Keras does not use them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any


@cache
def fused_adamw() -> Any:
    """Return Keras' AdamW for TensorFlow with one operation for each weight's step.

    Keras makes several dozen small ones of it, counting those that clip the gradient and ask the
    schedule for the rate anew, three times as many as this; a small net's step on a CPU shows them.
    The variables are Keras' own, and the steps differ only by rounding.
    """
    import keras
    import tensorflow as tf

    class FusedAdamW(keras.optimizers.Adam):  # type: ignore[misc]
        def __init__(self, rate: Any, *, weight_decay: float, **options: Any) -> None:
            super().__init__(rate, **options)
            self.decay = weight_decay

        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            """Take a step of all weights."""
            step = tf.cast(self.iterations + 1, tf.float32)
            self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
            super().apply(grads, trainable_variables)

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            """Take a step of one weight, which decays first, as Keras' does."""
            if self.decay and self._use_weight_decay(variable):
                self.assign_sub(variable, variable * (self.decay * learning_rate))
            index = self._get_variable_index(variable)
            tf.raw_ops.ResourceApplyAdam(
                var=variable.handle,
                m=self._momentums[index].value.handle,
                v=self._velocities[index].value.handle,
                beta1_power=self._powers[0],
                beta2_power=self._powers[1],
                lr=learning_rate,
                beta1=self.beta_1,
                beta2=self.beta_2,
                epsilon=self.epsilon,
                grad=gradient,
            )

        def _clip_by_norm(self, values: Any, axes: Any = None) -> Any:
            # A gradient of zero has an infinite factor, of which the smaller one is 1.
            inverse = tf.math.rsqrt(tf.nn.l2_loss(values)) / math.sqrt(2)
            return values * tf.minimum(1.0, self.clipnorm * inverse)

    return FusedAdamW
