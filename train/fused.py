"""Batch norm in one operation, where TensorFlow has it and Keras does not use it."""

from __future__ import annotations

from typing import Any


def with_fused_norms(net: Any, parts: int = 1) -> Any:
    """Return a model of the same layers and variables whose batch norms are fused.

    Keras computes batch norm from a dozen operations, each of which reads all activations again,
    and a small net's step on a CPU shows it. Only training differs, and only by rounding.

    Args:
        net: a functional or sequential Keras model on TensorFlow; others are returned as they are.
        parts: into how many parts a batch is cut. Each moves the running statistics, all together
            by as much as a whole batch would.
    """
    import keras

    if isinstance(net, keras.Sequential):
        net = keras.Model(net.inputs[0], net.outputs[0], name=net.name)
    if not isinstance(net, keras.Function):
        return net
    kind = _fused_norm(parts)

    def same_or_fused(layer: Any) -> Any:
        return kind(layer) if _can_fuse(layer) else layer

    return keras.models.clone_model(net, clone_function=same_or_fused)


def _can_fuse(layer: Any) -> bool:
    import keras

    return (
        type(layer) is keras.layers.BatchNormalization
        and not layer.renorm
        and not layer.synchronized
        and layer.input_spec.ndim in (2, 4)
        and layer.axis in (-1, layer.input_spec.ndim - 1)
    )


def _fused_norm(parts: int) -> type:
    import keras
    import tensorflow as tf

    class FusedNorm(keras.layers.Layer):  # type: ignore[misc]
        """The training pass of a batch norm, which keeps its variables."""

        def __init__(self, norm: Any) -> None:
            super().__init__(name=f"{norm.name}_fused", dtype=norm.dtype_policy)
            self.norm = norm

        def call(self, x: Any, training: bool = False, mask: Any = None) -> Any:
            norm = self.norm
            if not (training and norm.trainable):
                return norm(x, training=False)
            channels = x.shape[-1:]
            # oneDNN is slow in half precision unless it can take 16 channels at a time.
            native = x.shape[-1] % 16 == 0
            rows = x if len(x.shape) == 4 else x[:, None, None]
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=rows if native else tf.cast(rows, "float32"),
                scale=norm.gamma if norm.scale else tf.ones(channels),
                offset=norm.beta if norm.center else tf.zeros(channels),
                mean=[],
                variance=[],
                epsilon=norm.epsilon,
                is_training=True,
            )
            # It estimates the variance of all images; Keras keeps that of the batch.
            count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), "float32")
            momentum = norm.momentum ** (1 / parts)
            _move(norm.moving_mean, mean, momentum)
            _move(norm.moving_variance, variance * (count - 1) / count, momentum)
            # Without a reshape TensorFlow can make one operation of it and a ReLU that follows.
            return tf.cast(y if rows is x else tf.reshape(y, tf.shape(x)), x.dtype)

    return FusedNorm


def _move(average: Any, value: Any, momentum: float) -> None:
    average.assign(average * momentum + value * (1 - momentum))
